"""The command `segprior`: `segment` an image file, `cut` an object out of one; `info`, `selftest`, `bench`.

Exit codes: 0 done, 1 the library or the disk failed, 2 a wrong argument or input (one line says which).
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ._cli_bench import add_bench
from ._cli_cut import add_cut
from ._cli_info import add_info
from ._cli_selftest import add_selftest
from ._version import __version__
from .errors import InvalidTypeError, InvalidValueError, SegpriorError

if TYPE_CHECKING:
    from .segment import Progress, Segmentation, Settings

_EXAMPLES = """\
examples:
  segprior segment photo.png --classes 3 -o out/
      three classes by brightness or colour, smooth boundaries, volumes free
  segprior segment photo.png --classes 3 --volume 0.2,0.3,0.5 --eps 0.05 --tv 0.1 -o out/
      the darkest class takes 20 % of the image, the next 30 %, the brightest 50 %
  segprior segment photo.png --classes 3 --volume-bounds 0.1:0.3,0.2:,: -o out/
      the darkest class takes 10 to 30 %, the next at least 20 %, the brightest whatever is left
  segprior segment cell.png --classes 2 --star 120,85:1 --tv 0 --threshold-dynamics 0.05 -o out/
      the bright class is star-shaped about column 120, row 85; boundaries as threshold dynamics draws them
      (above --eps it need not converge together with --star or --tv)
  segprior segment scan.jpg --classes 2 --volume 0.1,0.9 --tv 0.3 --edge 20 -o out/
      boundaries are drawn to the edges of the image
  segprior segment photo.jpg --classes 4 --metric mahalanobis --eps 1 --tv 2 -o out/
      clusters of different spread; the cost is in variances, hence larger eps and tv

files written to the output folder (NAME is the image's):
  NAME_labels.png      label map, indexed: the pixel value is the class, class 0 the darkest
  NAME_labels.npy      the same as a NumPy array, uint8 [rows, columns]
  NAME_overlay.png     the image tinted by class, with boundaries
  NAME_class_K.png     probability of class K: black 0, white 1
"""


_TD_LAM = 0.1  # suits grey values in [0, 1], like the default of --tv


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _fractions(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a comma-separated list of numbers") from None


def _bounds(text: str) -> tuple[tuple[float, float], ...]:
    """LOWER:UPPER,... with 0 and no bound where a side is empty."""
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return tuple((float(lower or 0), float(upper or math.inf)) for lower, upper in pairs)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not LOWER:UPPER per class, separated by commas, as in 0.1:0.3,0.2:,:"
        ) from None


def _star(text: str) -> tuple[float, float, int]:
    try:
        center, cls = text.split(":")
        x, y = center.split(",")
        return float(x), float(y), int(cls)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not X,Y:CLASS (column, row and class of a centre), as in 120,85:1"
        ) from None


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number; without LAM it must not stand before the image"
        ) from None


def _add_segment(commands: argparse._SubParsersAction[_Parser]) -> None:
    p = commands.add_parser(
        "segment",
        help="segment an image file",
        description="Segments a grey or colour image: k-means finds the classes, the entropic softmax with "
        "total-variation, threshold-dynamics, volume and star-shape priors the regions.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("image", type=Path, help="PNG, JPEG or any file that Pillow reads")
    p.add_argument(
        "-o", "--output", type=Path, default=Path("out"), help="output folder, made if missing (out)"
    )
    p.add_argument("-c", "--classes", type=int, default=2, help="number of classes, dark to bright (2)")
    p.add_argument(
        "-v",
        "--volume",
        type=_fractions,
        metavar="A,B,...",
        help="fraction of the image per class, sum 1 (free)",
    )
    p.add_argument(
        "--volume-bounds",
        type=_bounds,
        metavar="LOWER:UPPER,...",
        help="least and largest fraction of the image per class; an empty side is no bound (free)",
    )
    p.add_argument("--eps", type=float, default=0.05, help="entropy weight: smaller is crisper (0.05)")
    p.add_argument("--tv", type=float, default=0.1, metavar="LAMBDA", help="weight of boundary length (0.1)")
    p.add_argument(
        "--threshold-dynamics",
        type=_weight,
        nargs="?",
        const=_TD_LAM,
        default=0.0,
        metavar="LAM",
        help=f"weight of threshold dynamics, {_TD_LAM} without a number; with --tv 0 instead of TV (0)",
    )
    p.add_argument("--td-size", type=int, default=7, help="its kernel: pixels per axis, odd (7)")
    p.add_argument("--td-sigma", type=float, default=5.0, help="its kernel: width in pixels (5)")
    p.add_argument(
        "--star",
        type=_star,
        action="append",
        default=[],
        metavar="X,Y:CLASS",
        help="the class is star-shaped about column X, row Y; may be repeated (none)",
    )
    p.add_argument(
        "--edge",
        type=float,
        default=0.0,
        metavar="BETA",
        help="weight 1/(1+BETA|grad image|) on the boundary (0)",
    )
    p.add_argument("--edge-sigma", type=float, default=1.0, help="smoothing before that gradient, pixels (1)")
    p.add_argument("--metric", default="euclidean", help="euclidean (squared) or mahalanobis (euclidean)")
    p.add_argument(
        "--spacing", type=_fractions, default=(1.0, 1.0), metavar="ROW,COLUMN", help="pixel size (1,1)"
    )
    p.add_argument("--tol", type=float, default=1e-3, help="stop when no probability changes by more (1e-3)")
    p.add_argument("--iters", type=int, default=2000, help="cap of the iterations (2000)")
    p.add_argument("--seed", type=int, default=0, help="seed of k-means (0)")
    p.add_argument("--threads", type=int, help="CPU threads (all)")
    p.add_argument("--verbose", action="store_true", help="print progress even if stderr is no terminal")
    p.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    p.set_defaults(run=_segment)


def _parser() -> _Parser:
    parser = _Parser(
        prog="segprior",
        description="Image segmentation with priors on boundaries, volumes and shapes.",
        epilog="'segprior segment --help' and 'segprior cut --help' have examples.",
    )
    parser.add_argument("--version", action="version", version=f"segprior {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    _add_segment(commands)
    add_cut(commands)
    add_info(commands)
    add_selftest(commands)
    add_bench(commands)
    return parser


def progress_printer(cap: int) -> Progress:
    """Prints iterations, residual and an estimate of the time left; a terminal shows one changing line."""
    began = time.perf_counter()
    end = "\r" if sys.stderr.isatty() else "\n"

    def show(done: int, residual: float) -> None:
        left = (time.perf_counter() - began) / done * (cap - done) if done else 0.0
        print(
            f"iteration {done:5d} of at most {cap}, residual {residual:.2e}, at most {left:.0f} s left ",
            end=end,
            file=sys.stderr,
            flush=True,
        )

    return show


def volume_table(found: Segmentation) -> str:
    """Volumes asked for and reached, one line per class."""
    lines = ["class            asked   reached   labelled"]
    for k, (reached, labelled) in enumerate(zip(found.reached, found.labelled)):
        lower, upper = (0, math.inf) if found.asked is None else found.asked[k]
        asked = f"{lower:.4f}" if lower == upper else f"{lower:.4f}:{upper:.4f}"
        asked = "free" if (lower, upper) == (0, math.inf) else asked
        lines.append(f"{k:5d} {asked:>16} {reached:9.4f}  {labelled:9.4f}")
    return "\n".join(lines)


def summary(found: Segmentation) -> str:
    """How the iteration ended, in one line."""
    name = found.status.name.lower().replace("_", " ")
    return f"{name}: {found.iterations} iterations, residual {found.residual:.2e}, {found.seconds:.2f} s"


def write_outputs(found: Segmentation, image: object, folder: Path, stem: str) -> list[Path]:
    """Writes the label map, overlay, probability maps and labels of one segmentation; returns the paths."""
    import numpy as np

    from . import images

    folder.mkdir(parents=True, exist_ok=True)
    classes = len(found.u)
    width = len(str(classes - 1))
    paths = [folder / f"{stem}_{name}" for name in ("labels.png", "labels.npy", "overlay.png")]
    images.write_labels(paths[0], found.labels, classes)
    images.write_npy(paths[1], found.labels)
    images.write_rgb(paths[2], images.overlay(np.asarray(image), found.labels, classes))
    for k, u in enumerate(found.u):
        paths.append(folder / f"{stem}_class_{k:0{width}d}.png")
        images.write_probability(paths[-1], u)
    return paths


def _settings(args: argparse.Namespace) -> Settings:
    from .segment import Settings

    names = {field.name for field in dataclasses.fields(Settings)}
    given = {name: value for name, value in vars(args).items() if name in names}
    return Settings(**{**given, "star": tuple(args.star)})


def _segment(args: argparse.Namespace) -> int:
    try:
        from . import images
        from .segment import check, segment
    except ImportError as error:
        if isinstance(error, SegpriorError):
            raise
        raise SegpriorError(f"{error}; pip install 'segprior[cli]' brings what `segment` needs") from error

    settings = _settings(args)
    check(settings)
    image = images.read(args.image)
    if args.output.exists() and not args.output.is_dir():
        raise InvalidValueError(f"{args.output}: is a file, not a folder")
    show = None
    if not args.quiet and (args.verbose or sys.stderr.isatty()):
        show = progress_printer(settings.iters)
    found = segment(image, settings, show)
    if show is not None and sys.stderr.isatty():
        print(" " * 79, end="\r", file=sys.stderr)
    if not math.isfinite(found.residual):
        raise SegpriorError(f"no result: {summary(found)}; a larger --eps may help")
    paths = write_outputs(found, image, args.output, args.image.stem)
    if not args.quiet:
        print(f"{args.image.name}: {image.shape[1]} x {image.shape[0]} pixels, {settings.classes} classes")
        print(volume_table(found))
        print(summary(found))
        print(f"wrote {len(paths)} files: {args.output / args.image.stem}_*")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    wrong_input = (InvalidValueError, InvalidTypeError)
    try:
        code: int = args.run(args)
        return code
    except (SegpriorError, OSError, MemoryError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"segprior {args.command}: error: {text}", file=sys.stderr)
        return 2 if isinstance(error, wrong_input) else 1
    except KeyboardInterrupt:
        print(f"segprior {args.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
