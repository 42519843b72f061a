"""The command line and the demonstration, as a user runs them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for needed in ("PIL", "sklearn", "skimage", "matplotlib"):
    pytest.importorskip(needed, reason=f"{needed} is not installed: pip install 'segprior[cli]'")

from PIL import Image  # noqa: E402

import segprior  # noqa: E402
from segprior import cli, demo, images  # noqa: E402
from segprior.segment import Settings, edge_function, segment, similarity  # noqa: E402


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Three flat stripes (dark, middle, bright; 20, 30 and 50 of 100 columns) with noise, as a PNG."""
    random = np.random.default_rng(1)
    columns = np.repeat([0.2, 0.5, 0.8], [20, 30, 50])
    noisy = columns + random.normal(scale=0.1, size=(40, 100))
    path = tmp_path / "stripes.png"
    Image.fromarray(np.rint(255 * noisy.clip(0, 1)).astype(np.uint8)).save(path)
    return path


def run(*arguments: Any) -> tuple[int, str, str]:
    """Exit code, output and error output. One thread: these pictures are too small to share out."""
    if arguments[:1] == ("segment",) and "--threads" not in arguments:
        arguments += ("--threads", 1)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def test_segment(picture: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    code, out, err = run(
        *("segment", picture, "--classes", 3, "--volume", "0.2,0.3,0.5"),
        *("--eps", 0.05, "--tv", 0.1, "-o", folder),
    )
    assert (code, err) == (0, "")
    names = ["labels.png", "labels.npy", "overlay.png", "class_0.png", "class_1.png", "class_2.png"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"stripes_{n}" for n in names)
    labels = np.load(folder / "stripes_labels.npy")
    truth = np.repeat([0, 1, 2], [20, 30, 50])[None].repeat(40, 0)
    assert labels.dtype == np.uint8 and (labels == truth).mean() > 0.99
    with Image.open(folder / "stripes_labels.png") as indexed:
        assert indexed.mode == "P" and np.array_equal(np.asarray(indexed), labels)
        assert indexed.getpalette()[:9] == images.palette(3).ravel().tolist()
    shares = [np.asarray(Image.open(folder / f"stripes_class_{k}.png")).mean() / 255 for k in range(3)]
    np.testing.assert_allclose(shares, [0.2, 0.3, 0.5], atol=2e-3)  # 8-bit maps
    assert np.asarray(Image.open(folder / "stripes_overlay.png")).shape == (40, 100, 3)
    assert "100 x 40 pixels, 3 classes" in out and "converged:" in out and "iterations, residual" in out
    table = [
        line.split() for line in out.splitlines() if line.strip()[:1] in "012" and len(line.split()) == 4
    ]
    assert [row[1] for row in table] == [row[2] for row in table] == ["0.2000", "0.3000", "0.5000"]


def test_volume_bounds(picture: Path, tmp_path: Path) -> None:
    arguments = ("segment", picture, "-c", 3, "--eps", 0.05, "--tv", 0.1, "-o", tmp_path / "o")
    code, out, err = run(*arguments, "--volume-bounds", "0.25:0.4,:0.2,:")
    assert (code, err) == (0, "")
    table = [line.split() for line in out.splitlines()[2:5]]
    assert [row[1] for row in table] == ["0.2500:0.4000", "0.0000:0.2000", "free"]
    reached = [float(row[2]) for row in table]  # without bounds 0.2, 0.3, 0.5
    assert 0.25 - 1e-3 < reached[0] < 0.4 and abs(reached[1] - 0.2) < 2e-3


def occluded(path: Path) -> np.ndarray:
    """Writes a noisy dark disc about column 44, row 16, cut by a bright bar, and a dark spot; the disc."""
    rows, columns = np.mgrid[:48, :64]
    disc = np.hypot(rows - 16, columns - 44) < 14
    dark = (disc & (abs(columns - 50) > 1)) | (np.hypot(rows - 40, columns - 16) < 4)
    noisy = np.where(dark, 0.3, 0.7) + np.random.default_rng(4).normal(scale=0.08, size=dark.shape)
    Image.fromarray(np.rint(255 * noisy.clip(0, 1)).astype(np.uint8)).save(path)
    return np.asarray(disc)


def test_star(tmp_path: Path) -> None:
    """The bar is filled, the spot goes: neither is star-shaped about the centre."""
    disc = occluded(tmp_path / "disc.png")
    arguments = ("segment", tmp_path / "disc.png", "-q", "--tv", 0.05, "-o", tmp_path / "o")
    labels = []
    for more in ((), ("--star", "44,16:0")):
        code, _, err = run(*arguments, *more)
        assert (code, err) == (0, "")
        labels.append(np.load(tmp_path / "o" / "disc_labels.npy"))
    free, star = labels
    assert (free[11:22, 50] == 1).all() and (free[38:43, 14:19] == 0).all()
    assert (star[11:22, 50] == 0).all() and (star[38:43, 14:19] == 1).all()
    right = [((found == 0) == disc).mean() for found in (free, star)]
    assert right[1] > right[0] + 0.02, right


def test_threshold_dynamics(picture: Path, tmp_path: Path) -> None:
    truth = np.repeat([0, 1, 2], [20, 30, 50])
    arguments = ("segment", picture, "-c", 3, "--tv", 0, "-q", "-o", tmp_path / "o")
    rates = []
    for more in (
        (),
        ("--threshold-dynamics",),
        ("--threshold-dynamics=0.1", "--td-size", 7),
        ("--threshold-dynamics", 0.2, "--td-size", 3, "--td-sigma", 1),
    ):
        code, _, err = run(*arguments, *more)
        assert (code, err) == (0, "")
        rates.append((np.load(tmp_path / "o" / "stripes_labels.npy") == truth).mean())
    assert rates[0] < 0.95 and rates[1] > 0.99 and rates[1] == rates[2] and rates[3] > 0.98
    # Its force is not among the duals that a chunk hands to the next.
    settings = Settings(classes=3, tv=0.0, threshold_dynamics=0.2, threads=1)
    whole, chunks = (segment(images.read(picture), dataclasses.replace(settings, chunk=n)) for n in (500, 20))
    assert whole.iterations > 20 and np.array_equal(whole.u, chunks.u)


def test_volumes_are_free_without_the_option(picture: Path, tmp_path: Path) -> None:
    code, out, _ = run("segment", picture, "-c", 2, "-o", tmp_path / "o")
    assert code == 0 and [line.split()[1] for line in out.splitlines()[2:4]] == ["free", "free"]


@pytest.mark.parametrize("name", ["coins.png", "chelsea.png"])
def test_photograph(name: str, tmp_path: Path) -> None:
    """A grey and a colour photograph, through a JPEG; the volumes asked for are reached."""
    photo = Image.open(demo.photograph(name))
    photo.resize((photo.width // 3, photo.height // 3)).save(tmp_path / "photo.jpg", quality=92)
    image = images.read(tmp_path / "photo.jpg")
    assert image.ndim == (2 if name == "coins.png" else 3) and image.min() == 0 and image.max() == 1
    volume = (0.25, 0.35, 0.4)
    found = segment(image, Settings(classes=3, volume=volume, eps=0.02, tv=0.1, threads=1))
    assert found.status is segprior.Status.CONVERGED and found.residual < 1e-3
    np.testing.assert_allclose(found.reached, volume, atol=1e-3)
    np.testing.assert_allclose(found.labelled, volume, atol=0.08)
    brightness = [images.grey(image)[found.labels == k].mean() for k in range(3)]
    assert brightness == sorted(brightness)
    rough = segment(image, Settings(classes=3, tv=0.0, threads=1))
    assert boundary(found.labels) < 0.5 * boundary(rough.labels), "TV shortens boundaries"


def test_chunks_do_not_stop_early(tmp_path: Path) -> None:
    """Steps are short after a chunk's start, where momentum is missing; that must not pass for convergence."""
    photo = Image.open(demo.photograph("coins.png"))
    image = images.normalise(np.asarray(photo.resize((photo.width // 3, photo.height // 3))))
    settings = Settings(classes=3, volume=(0.2, 0.3, 0.5), threads=1)
    whole = segment(image, dataclasses.replace(settings, chunk=2000))
    chunks = segment(image, dataclasses.replace(settings, chunk=100))
    assert chunks.iterations > 0.7 * whole.iterations > 140
    assert (chunks.labels != whole.labels).mean() < 2e-3


def boundary(labels: np.ndarray) -> int:
    return int((labels[1:] != labels[:-1]).sum() + (labels[:, 1:] != labels[:, :-1]).sum())


def test_edge_and_mahalanobis(picture: Path, tmp_path: Path) -> None:
    code, _, err = run(
        *("segment", picture, "-c", 3, "--edge", 10, "--spacing", "1,2", "--metric", "mahalanobis"),
        *("--eps", 1, "--tv", 2, "-q", "-o", tmp_path / "o"),
    )
    assert (code, err) == (0, "")
    labels = np.load(tmp_path / "o" / "stripes_labels.npy")
    assert (labels == np.repeat([0, 1, 2], [20, 30, 50])).mean() > 0.98
    e = edge_function(images.read(picture), 10.0, 1.0, (1.0, 1.0))
    assert 0 < e.min() < e.max() <= 1 and e[:, 20].mean() < e[:, 10].mean(), "e is small across an edge"


def test_similarity() -> None:
    """Squared distances to the class means, dark class first."""
    image = np.array([[0.0, 0.1, 0.9, 1.0]] * 3)
    cost = similarity(image, 2)
    np.testing.assert_allclose(cost[0, 0], (image[0] - 0.05) ** 2, atol=1e-12)
    np.testing.assert_allclose(cost[1, 0], (image[0] - 0.95) ** 2, atol=1e-12)


def test_progress_and_chunks(picture: Path, tmp_path: Path) -> None:
    arguments = ("segment", picture, "-c", 3, "-v", "0.3,0.3,0.4", "--iters", 1200, "--tol", 1e-12)
    code, out, err = run(*arguments, "-o", tmp_path / "o", "--verbose")
    lines = err.splitlines()
    assert code == 0 and [line.split()[1] for line in lines] == ["500", "1000", "1200"]
    assert all("residual" in line and "s left" in line for line in lines)
    assert "iteration cap: 1200 iterations" in out
    code, quiet_out, quiet_err = run(*arguments, "-o", tmp_path / "p", "-q")
    assert (code, quiet_out, quiet_err) == (0, "", "")
    one, two = (np.load(tmp_path / f / "stripes_labels.npy") for f in "op")
    assert np.array_equal(one, two), "the result does not depend on who watches"


def test_info() -> None:
    code, out, _ = run("info")
    assert code == 0
    assert f"package   {segprior.__version__}" in out and "1 cpu" in out and "CPU" in out


def test_help_has_examples() -> None:
    code, out, _ = run("segment", "--help")
    assert code == 0 and "segprior segment photo.png --classes 3 --volume 0.2,0.3,0.5" in out
    assert run("--version")[1].strip() == f"segprior {segprior.__version__}"


def test_wrong_arguments(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:900])
    Image.new("L", (8, 8), 7).save(tmp_path / "flat.png")
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((tmp_path / "none.png",), "none.png: no such file"),
        ((tmp_path / "text.png",), "text.png: not an image"),
        ((tmp_path / "cut.png",), "cut.png: cannot be read: "),
        ((tmp_path,), f"{tmp_path}: cannot be read: "),
        ((tmp_path / "flat.png",), "the image has fewer distinct colours than the 2 classes asked for"),
        ((picture, "-v", "0.5,0.4"), "volume = 0.5,0.4 sums to 0.9; fractions must sum to 1"),
        ((picture, "-v", "0.5,0.3,0.2"), "volume has 3 fractions for 2 classes"),
        ((picture, "-v", "1.5,-0.5"), "volume = 1.5,-0.5; fractions must be >= 0"),
        ((picture, "-v", "nan,1"), "volume = nan,1; fractions must be >= 0"),
        ((picture, "-v", "a,b"), "argument -v/--volume: 'a,b' is not a comma-separated list of numbers"),
        ((picture, "--volume-bounds", "0.1:0.2"), "volume_bounds has 1 pairs for 2 classes"),
        (
            (picture, "--volume-bounds", "0.5:0.2,:"),
            "volume_bounds of class 0 = 0.5:0.2; it must be 0 <= lower <=",
        ),
        (
            (picture, "--volume-bounds", ":0.3,:0.3"),
            "volume_bounds allow 0 to 0.6 of the image in all; 1 must",
        ),
        ((picture, "--volume-bounds", "nan:,:"), "volume_bounds of class 0 = nan:inf; it must be"),
        (
            (picture, "--volume-bounds", "0.1,0.2"),
            "argument --volume-bounds: '0.1,0.2' is not LOWER:UPPER per class, separated by commas",
        ),
        (
            (picture, "-v", "0.5,0.5", "--volume-bounds", ":,:"),
            "volume and volume_bounds are both given; they exclude each other",
        ),
        ((picture, "--star", "3,4"), "argument --star: '3,4' is not X,Y:CLASS"),
        ((picture, "--star", "3,4:2"), "star = 3,4:2; the class must be 0 .. 1"),
        ((picture, "--star", "nan,4:1"), "star = nan,4:1; the centre must be finite"),
        ((picture, "--star", "3,4:1", "--star", "5,6:1"), "star = 5,6:1; class 1 has a star already"),
        ((picture, "--threshold-dynamics", "-1"), "threshold_dynamics = -1.0; it must be >= 0"),
        (
            ("--threshold-dynamics", picture),
            "is not a number; without LAM it must not stand before the image",
        ),
        ((picture, "--td-size", "4"), "td_size = 4; it must be odd, 1 .. 15"),
        ((picture, "--td-sigma", "0"), "td_sigma = 0.0; it must be > 0"),
        ((picture, "-c", "1"), "classes = 1; it must be 2 .. 256"),
        ((picture, "-c", "x"), "argument -c/--classes: invalid int value: 'x'"),
        ((picture, "--eps", "0"), "eps = 0.0; it must be > 0"),
        ((picture, "--tv", "-1"), "tv = -1.0; it must be >= 0"),
        ((picture, "--edge", "-1"), "edge = -1.0; it must be >= 0"),
        ((picture, "--iters", "0"), "iters = 0; it must be >= 1"),
        ((picture, "--tol", "nan"), "tol = nan; it must be > 0"),
        ((picture, "--spacing", "1"), "spacing = (1.0,); it must be two positive numbers"),
        ((picture, "--metric", "city"), "metric = 'city'; it must be one of euclidean, mahalanobis"),
        ((picture, "--threads", "-3"), "threads = -3"),
        ((picture, "--colour"), "unrecognized arguments: --colour"),
        ((), "the following arguments are required: image"),
        ((picture, "-o", picture), "is a file, not a folder"),
    ]
    for arguments, text in cases:
        if "-o" not in arguments:
            arguments += ("-o", tmp_path / "o")
        code, out, err = run("segment", *arguments)
        assert code == 2 and out == "", (arguments, err)
        assert text in err and err.startswith("segprior") and err.count("\n") == 1, (arguments, err)
        assert not (tmp_path / "o").exists(), "nothing is written when an argument is wrong"
    assert run("paint")[0] == 2 and run()[0] == 2


def test_nothing_half_written(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up in the middle of a picture: no partial file, the old one stays."""
    folder = tmp_path / "o"
    assert run("segment", picture, "-q", "-o", folder)[0] == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(self: Any, file: Any, *rest: Any, **more: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    code, _, err = run("segment", picture, "-q", "--tv", 0.5, "-o", folder)
    assert code == 1 and "No space left on device" in err and err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_image_modes(mode: str, tmp_path: Path) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint16), (4, 1))
    if mode == "I;16":
        picture = Image.fromarray(256 * ramp)
    else:
        picture = Image.fromarray(ramp.astype(np.uint8)).convert(mode)
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    picture.save(path)
    image = images.read(path)
    assert image.shape[:2] == (4, 256) and image.ndim == (2 if mode in ("1", "L", "LA", "I;16") else 3)
    assert image.min() == 0 and image.max() == 1
    if mode != "1":
        np.testing.assert_allclose(images.grey(image)[0], np.arange(256) / 255, atol=0.02)


def test_upright(tmp_path: Path) -> None:
    """A camera's rotation tag is obeyed."""
    picture = Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert images.read(tmp_path / "turned.jpg").shape == (20, 10)


def test_palette() -> None:
    colours = images.palette(256)
    assert colours.shape == (256, 3) and len(np.unique(colours, axis=0)) > 200
    assert len(np.unique(images.palette(20), axis=0)) == 20


def test_settings_are_the_command_lines_defaults() -> None:
    """Help text and `Settings` name the same numbers."""
    args = cli._parser().parse_args(["segment", "x.png"])
    assert cli._settings(args) == Settings()
    assert {field.name for field in dataclasses.fields(Settings)} - set(vars(args)) == {"chunk"}


def test_console_script_runs() -> None:
    done = subprocess.run([sys.executable, "-m", "segprior.cli", "info"], capture_output=True, text=True)
    assert done.returncode == 0 and "devices" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "segprior.cli", "info"],
        capture_output=True,
        text=True,
        env={**os.environ, "SEGPRIOR_LIBRARY": "/nowhere.so"},
    )
    assert done.returncode == 1 and done.stderr.startswith("segprior info: error: SEGPRIOR_LIBRARY")


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole demonstration; the photographs a quarter of their size to save time, but that with clicks."""

    def small(name: str) -> Path:
        path = tmp_path / name
        if not path.exists():
            with Image.open(original(name)) as photo:
                shrink = 1 if name == "coffee.png" else 4
                photo.resize((photo.width // shrink, photo.height // shrink)).save(path)
        return path

    original = demo.photograph
    monkeypatch.setattr(demo, "photograph", small)
    assert demo.main(["-o", str(tmp_path / "out"), "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("$ segprior segment camera.png --classes 3 --volume")
    for title in ("softmax", "TV-softmax", "VPTV-softmax, volume 10 %", "VPTV-softmax, volume 32 %"):
        assert any(line.startswith(title + "  ") for line in out.splitlines()), title
    for line in out.splitlines():
        if line.startswith("VPTV"):
            asked, reached = line.split()[4:6]
            assert abs(float(asked) - float(reached)) < 1e-3
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"camera_labels.png", "camera_overlay.png", "camera_class_2.png"} <= names
    for name in ("coins_volumes.png", "coins_entropy.png", "star_shapes.png", "coffee_cut.png"):
        with Image.open(tmp_path / "out" / name) as figure:
            assert figure.width > 1200 and np.asarray(figure).std() > 20
    (cup,) = [line for line in out.splitlines() if line.startswith("coffee.png:")]
    assert 44 < float(cup.split(";")[1].split()[0]) < 48
    rows = {line[:27].strip(): line[27:].split() for line in out.splitlines()}  # the last of each title
    undecided = [float(rows[f"ε = {eps:g}"][0]) for eps in (0.2, 0.1, 0.05, 0.02, 0.01)]
    assert undecided == sorted(undecided, reverse=True) and undecided[0] > 0.9 and undecided[-1] < 0.1
    overlap = [float(rows[title][0]) for title in ("softmax", "STD", "VP-STD", "SS-STD")]
    assert overlap == sorted(overlap) and overlap[-2] < 0.92 < overlap[-1]
    assert abs(float(rows["VP-STD"][1]) - 1) < 2e-3
