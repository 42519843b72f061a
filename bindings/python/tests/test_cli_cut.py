"""`segprior cut`, as a user runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("skimage", reason="skimage is not installed: pip install 'segprior[cli]'")
pytest.importorskip("PIL", reason="Pillow is not installed: pip install 'segprior[cli]'")

from PIL import Image  # noqa: E402
from test_cli import run  # noqa: E402

from segprior import cut, images  # noqa: E402
from segprior.cut import CutSettings  # noqa: E402


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A bright disc (radius 12 about column 40, row 25) on a dark ground of 80 x 50 pixels, with noise."""
    rows, columns = np.ogrid[:50, :80]
    disc = (columns - 40) ** 2 + (rows - 25) ** 2 <= 144
    noisy = 0.3 + 0.4 * disc + np.random.default_rng(0).normal(scale=0.03, size=disc.shape)
    path = tmp_path / "disc.png"
    Image.fromarray(np.rint(255 * noisy).astype(np.uint8)).save(path)
    return path


SEEDS = ("--foreground", "40,25", "--background", "5,5", "--background", "75,45")


def test_cut(picture: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    code, out, err = run("cut", picture, *SEEDS, "-o", folder, "--threads", 1)
    assert (code, err) == (0, "")
    names = ["disc_cut.json", "disc_cut.png", "disc_mask.png", "disc_soft.png"]
    assert sorted(p.name for p in folder.iterdir()) == names
    rows, columns = np.ogrid[:50, :80]
    disc = (columns - 40) ** 2 + (rows - 25) ** 2 <= 144
    mask = np.asarray(Image.open(folder / "disc_mask.png"))
    assert set(np.unique(mask)) == {0, 255} and ((mask == 255) == disc).mean() > 0.995
    soft = np.asarray(Image.open(folder / "disc_soft.png"))
    assert soft[25, 40] == 255 and soft[5, 5] == 0 and (soft[disc] > 200).mean() > 0.95
    assert np.asarray(Image.open(folder / "disc_cut.png")).shape == (50, 80, 3)
    report = json.loads((folder / "disc_cut.json").read_text())
    assert report["status"] == "CONVERGED" and report["residual"] <= 1e-8
    assert report["settings"]["background"] == [[5, 5], [75, 45]]
    assert report["foreground"] == pytest.approx((mask == 255).mean())
    assert "80 x 50 pixels" in out and "converged:" in out and "wrote 4 files" in out


def test_solvers_agree(picture: Path) -> None:
    image = images.read(picture)
    seeds = {"foreground": [(40, 25)], "background": [(5, 5), (75, 45)]}
    found = [cut.cut(image, CutSettings(**seeds, solver=solver)) for solver in ("auto", "cg", "multigrid")]
    for other in found[1:]:
        np.testing.assert_allclose(other.x, found[0].x, atol=1e-3)
    assert found[0].x.min() > -1e-6 and found[0].x.max() < 1 + 1e-6


def test_colour(tmp_path: Path) -> None:
    """Two halves of the same brightness that differ in colour alone."""
    halves = np.zeros((20, 30, 3), np.uint8)
    halves[:, :15], halves[:, 15:] = (200, 50, 50), (50, 109, 207)
    Image.fromarray(halves).save(tmp_path / "halves.png")
    code, _, err = run(
        *("cut", tmp_path / "halves.png", "--foreground", "2,2", "--background", "28,18"),
        *("-o", tmp_path, "-q"),
    )
    assert (code, err) == (0, "")
    mask = np.asarray(Image.open(tmp_path / "halves_mask.png"))
    assert (mask[:, :15] == 255).all() and (mask[:, 15:] == 0).all()


@pytest.mark.parametrize(
    "arguments, text",
    [
        (("--foreground", "40,25"), "background has no seed"),
        (("--background", "40,25"), "foreground has no seed"),
        (
            ("--foreground", "80,25", "--background", "5,5"),
            "foreground = 80,25 lies outside the image; x must be 0",
        ),
        (("--foreground", "40,25", "--background", "5,50"), "background = 5,50 lies outside .* y 0 .. 49"),
        (("--foreground", "40,25", "--background", "43,25"), "is seed of both .* seed_radius = 3"),
        (("--foreground", "40;25"), "'40;25' is not X,Y"),
        ((*SEEDS, "--weight", "0"), "weight = 0.0; it must be > 0"),
        ((*SEEDS, "--beta", "-1"), "beta = -1.0; it must be >= 0"),
        ((*SEEDS, "--floor", "2"), "floor = 2.0; it must be 0 .. 1"),
        ((*SEEDS, "--seed-radius", "nan"), "seed_radius = nan"),
        ((*SEEDS, "--seed-conductance", "0"), "seed_conductance = 0.0"),
        ((*SEEDS, "--tol", "0"), "tol = 0.0; it must be > 0"),
        ((*SEEDS, "--solver", "lu"), "solver = 'lu'; it must be one of auto, cg"),
    ],
)
def test_wrong_arguments(picture: Path, tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    code, out, err = run("cut", picture, *arguments, "-o", tmp_path / "o")
    assert code == 2 and out == "" and len(err.splitlines()) == 1
    assert re.search(text, err), err
    assert not (tmp_path / "o").exists()


def test_missing_image(tmp_path: Path) -> None:
    code, _, err = run("cut", tmp_path / "none.png", *SEEDS)
    assert code == 2 and "none.png: no such file" in err
