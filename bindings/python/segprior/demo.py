"""``python -m segprior.demo -o out``: the main job on real photographs, and figures of what each prior does.

1. The command line's own `segment` on a photograph, three classes with prescribed volumes.
2. The experiment of [VPTV] Fig. 5: one photograph, plain softmax, TV-softmax, and VPTV-softmax at three
   prescribed volumes of the object.
3. The experiment of [VPTV] Fig. 6: a smaller ε makes u binary.
4. The experiment of [STD] Fig. 6: a noisy object behind a bar; threshold dynamics, star shape, volume.
5. SoftCut: a cup cut out of a photograph with a few clicks, as `segprior cut` does it.

The photographs come with scikit-image; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import cli, gallery, images
from ._cli_cut import summary
from .cut import CutSettings, cut
from .errors import SegpriorError
from .segment import Segmentation, Settings, segment

_FRACTIONS = (0.1, 0.2, 0.32)  # of the coins; the last is about what they really cover
_COINS = Settings(classes=2, eps=0.01, tv=0.1)
_PART_FRACTION = 0.3  # of the part of the coins where the background is dark
_OBJECT = 1  # coins are the brighter class
# The cup, saucer and spoon of coffee.png.
_CUP = CutSettings(
    foreground=(
        (300, 110),
        (265, 220),
        (130, 250),
        (105, 190),
        (450, 230),
        (360, 280),
        (300, 340),
        (416, 92),
    ),
    background=(
        *((30, 30), (570, 30), (570, 370), (250, 10), (445, 60), (62, 245), (540, 250)),
        *((140, 70), (90, 320), (200, 390), (430, 380), (78, 150), (66, 200)),
    ),
    beta=6.0,
)


def photograph(name: str) -> Path:
    """A file among the images that scikit-image carries in its package."""
    import skimage

    path = Path(skimage.__file__).parent / "data" / name
    if not path.is_file():
        raise SegpriorError(f"{path} is missing: this scikit-image comes without its photographs")
    return path


def runs(image: np.ndarray, threads: int | None = None) -> list[tuple[str, Segmentation]]:
    """The five segmentations of the figure, with their titles."""
    base = dataclasses.replace(_COINS, threads=threads)
    wanted = [("softmax", dataclasses.replace(base, tv=0.0)), ("TV-softmax", base)]
    for fraction in _FRACTIONS:
        settings = dataclasses.replace(base, volume=(1 - fraction, fraction))
        wanted.append((f"VPTV-softmax, volume {100 * fraction:.0f} %", settings))
    return [(title, segment(image, settings)) for title, settings in wanted]


def table(found: Sequence[tuple[str, Segmentation]]) -> str:
    """Volumes of the object asked for and reached, iterations, residual and time of each run."""
    lines = [
        f"{'':27} {'asked':>7} {'reached':>8} {'labelled':>9} {'iterations':>11} {'residual':>9} {'time':>8}"
    ]
    for title, run in found:
        asked = "free" if run.asked is None else f"{run.asked[_OBJECT][0]:.4f}"
        lines.append(
            f"{title:27} {asked:>7} {run.reached[_OBJECT]:8.4f} {run.labelled[_OBJECT]:9.4f} "
            f"{run.iterations:11d} {run.residual:9.1e} {run.seconds:6.2f} s"
        )
    return "\n".join(lines)


def draw(path: Path, image: np.ndarray, found: Sequence[tuple[str, Segmentation]]) -> None:
    """The figure: photograph, softmax, TV-softmax above the three VPTV-softmax results."""
    figure, axes = gallery.figure(2, 3, image.shape, 0.75)
    axes[0].imshow(images.rgb8(image))
    axes[0].set_title("photograph", fontsize=13)
    for ax, (title, run) in zip(axes[1:], found):
        ax.imshow(images.overlay(image, run.labels, len(run.u)))
        state = "free" if run.asked is None else "reached"
        ax.set_title(f"{title}\n({state}: {100 * run.reached[_OBJECT]:.1f} %)", fontsize=13)
    gallery.save(figure, path)


def _papers(coins: np.ndarray, output: Path, threads: int | None) -> None:
    """Figures 6 of both papers, remade."""
    height, width = coins.shape
    part = images.normalise(coins[int(0.42 * height) : int(0.84 * height), : 2 * width // 3])
    print("\ncoins.png, a part: share of pixels with u between 0.05 and 0.95")
    panels = gallery.entropies(part, _PART_FRACTION, threads)
    for panel in panels:
        print(f"{panel.title:27} {gallery.undecided(panel.u):7.4f}")
    figure = output / "coins_entropy.png"
    gallery.draw_entropies(figure, part, panels)
    print(f"wrote {figure}")

    scene = gallery.occluded_star()
    print("\na noisy object behind a bar: overlap (IoU) with the object, volume over the object's")
    panels = gallery.shapes(scene, threads)
    for panel in panels:
        volume = panel.u.sum(dtype=np.float64) / scene.thing.sum()
        print(f"{panel.title:27} {gallery.overlap(panel.u, scene.thing):7.4f} {volume:8.4f}")
    figure = output / "star_shapes.png"
    gallery.draw_shapes(figure, scene, panels)
    print(f"wrote {figure}")


def _cup(output: Path, threads: int | None) -> None:
    image = images.read(photograph("coffee.png"))
    settings = dataclasses.replace(_CUP, threads=threads)
    found = cut(image, settings)
    clicks = f"{len(settings.foreground)} clicks on the cup, {len(settings.background)} around it"
    print(f"\ncoffee.png: {clicks}; {100 * found.mask.mean():.1f} % of the picture")
    print(summary(found))
    figure = output / "coffee_cut.png"
    gallery.draw_cut(figure, image, settings, found)
    print(f"wrote {figure}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m segprior.demo", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="output folder (out)")
    parser.add_argument("--threads", type=int, help="CPU threads (all)")
    args = parser.parse_args(arguments)
    try:
        options = "--classes 3 --volume 0.3,0.38,0.32 --eps 0.02 --tv 0.1"
        print(f"$ segprior segment camera.png {options} -o {args.output}")
        command = ["segment", str(photograph("camera.png")), *options.split(), "-o", str(args.output)]
        code = cli.main(command + ([] if args.threads is None else ["--threads", str(args.threads)]))
        if code != 0:
            return code
        path = photograph("coins.png")
        image = images.read(path)
        print(f"\ncoins.png: {image.shape[1]} x {image.shape[0]} pixels; share of the image covered by coins")
        found = runs(image, args.threads)
        print(table(found))
        figure = args.output / "coins_volumes.png"
        draw(figure, image, found)
        print(f"wrote {figure}")
        _papers(image, args.output, args.threads)
        _cup(args.output, args.threads)
    except (SegpriorError, OSError, ImportError) as error:
        print(f"segprior.demo: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
