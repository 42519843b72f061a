"""The command `segprior cut`: an object cut out of an image file, from a few seed pixels."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidValueError, SegpriorError

if TYPE_CHECKING:
    from .cut import Cut, CutSettings

_EXAMPLES = """\
examples:
  segprior cut photo.png --foreground 300,110 --background 30,30 --background 570,370 -o out/
      the object around column 300, row 110; repeat both options where the cut is wrong
  segprior cut photo.png --foreground 300,110 --background 30,30 --beta 10 --solver direct -o out/
      boundaries follow weaker edges of the image; solved by factorisation

files written to the output folder (NAME is the image's):
  NAME_soft.png      soft foreground: black 0, white 1
  NAME_mask.png      the cut: 255 foreground, 0 background
  NAME_cut.png       the image tinted by the mask, with its boundary
  NAME_cut.json      seeds, settings, how the solver ended, share of the foreground
"""


def _point(text: str) -> tuple[int, int]:
    try:
        x, y = text.split(",")
        return int(x), int(y)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y (column and row), as in 120,85") from None


def add_cut(commands: Any) -> None:
    p = commands.add_parser(
        "cut",
        help="cut an object out of an image file, from seed pixels",
        description="Cuts an object out of a grey or colour image by SoftCut: labels spread from seed pixels "
        "over edge weights that are small where the image changes.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("image", type=Path, help="PNG, JPEG or any file that Pillow reads")
    p.add_argument(
        "-o", "--output", type=Path, default=Path("out"), help="output folder, made if missing (out)"
    )
    for name in ("foreground", "background"):
        p.add_argument(
            f"--{name}",
            type=_point,
            action="append",
            default=[],
            metavar="X,Y",
            help=f"a pixel of the {name}: column X, row Y, from 0; needed, may be repeated",
        )
    p.add_argument("--weight", type=float, default=1.0, help="edge weight where the image is flat (1)")
    p.add_argument(
        "--beta",
        type=float,
        default=5.0,
        help="how fast weights fall with contrast, relative to the image's mean contrast (5)",
    )
    p.add_argument("--floor", type=float, default=1e-4, help="least weight, relative to --weight (1e-4)")
    p.add_argument("--seed-radius", type=float, default=3.0, help="radius of a seed in pixels (3)")
    p.add_argument(
        "--seed-conductance", type=float, default=1000.0, help="how firmly seeds hold their value (1000)"
    )
    p.add_argument("--solver", default="auto", help="auto, cg, jacobi, multigrid, chebyshev or direct (auto)")
    p.add_argument(
        "--tol", type=float, default=1e-8, help="stop at this root mean square of the residual (1e-8)"
    )
    p.add_argument("--threads", type=int, help="CPU threads (all)")
    p.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    p.set_defaults(run=_cut)


def summary(found: Cut) -> str:
    """How the solver ended, in one line."""
    name = found.status.name.lower().replace("_", " ")
    return f"{name}: {found.iterations} iterations, residual {found.residual:.2e}, {found.seconds:.2f} s"


def write_outputs(found: Cut, image: Any, settings: CutSettings, folder: Path, stem: str) -> list[Path]:
    """Writes soft map, mask, overlay and report of one cut; returns the paths."""
    import numpy as np

    from . import images

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}_{name}" for name in ("soft.png", "mask.png", "cut.png", "cut.json")]
    images.write_probability(paths[0], found.x)
    images.write_probability(paths[1], found.mask)
    images.write_rgb(paths[2], images.overlay(image, found.mask.astype(np.uint8), 2))
    report = {
        "columns": image.shape[1],
        "rows": image.shape[0],
        "settings": dataclasses.asdict(settings),
        "status": found.status.name,
        "iterations": found.iterations,
        "residual": found.residual,
        "seconds": round(found.seconds, 4),
        "foreground": float(found.mask.mean()),
        "foreground_soft": float(found.x.mean()),
    }
    text = json.dumps(report, indent=2) + "\n"
    images.write_atomically(paths[3], lambda file: file.write(text.encode()))
    return paths


def _cut(args: argparse.Namespace) -> int:
    try:
        from . import images
    except ImportError as error:
        raise SegpriorError(f"{error}; pip install 'segprior[cli]' brings what `cut` needs") from error
    from .cut import CutSettings, check, cut

    names = {field.name for field in dataclasses.fields(CutSettings)}
    settings = CutSettings(**{name: value for name, value in vars(args).items() if name in names})
    check(settings)
    image = images.read(args.image)
    if args.output.exists() and not args.output.is_dir():
        raise InvalidValueError(f"{args.output}: is a file, not a folder")
    found = cut(image, settings)
    if not math.isfinite(found.residual):
        raise SegpriorError(f"no result: {summary(found)}; a smaller --weight or --seed-conductance may help")
    paths = write_outputs(found, image, settings, args.output, args.image.stem)
    if not args.quiet:
        print(f"{args.image.name}: {image.shape[1]} x {image.shape[0]} pixels")
        print(f"foreground {100 * found.mask.mean():.1f} % of the image, soft {100 * found.x.mean():.1f} %")
        print(summary(found))
        print(f"wrote {len(paths)} files: {args.output / args.image.stem}_*")
    return 0
