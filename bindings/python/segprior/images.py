"""Image files for the command line: reading photographs, writing label maps, overlays and probability maps.

Needs Pillow and scikit-image (``pip install segprior[cli]``). A file is written beside its final name and
then renamed: an interrupted run leaves no half-written picture.
"""

from __future__ import annotations

import colorsys
import os
import tempfile
from pathlib import Path
from typing import Any, Callable

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import InvalidValueError

# Okabe and Ito's colours: told apart with any colour vision. More classes continue round the hue circle.
_COLOURS: list[tuple[int, ...]] = [
    *((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167)),
    *((86, 180, 233), (213, 94, 0), (240, 228, 66), (120, 120, 120)),
]
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: weights of red, green, blue in brightness


def palette(classes: int) -> np.ndarray:
    """One RGB colour per class, uint8 [classes, 3]."""
    colours = list(_COLOURS)
    for k in range(classes - len(colours)):
        hue = (0.05 + 0.618034 * k) % 1  # golden ratio: neighbours in number are far apart in hue
        rgb = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (k % 2), 0.6 + 0.35 * (k // 2 % 2))
        colours.append(tuple(round(255 * c) for c in rgb))
    return np.array(colours[:classes], np.uint8)


def normalise(pixels: np.ndarray) -> np.ndarray:
    """Any numbers to float64 in [0, 1]: the darkest value of all channels to 0, the brightest to 1."""
    values = np.asarray(pixels, np.float64)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def read(path: str | os.PathLike[str]) -> np.ndarray:
    """A PNG, JPEG or other file that Pillow reads, as [H, W] (grey) or [H, W, 3] (colour) in [0, 1].

    Turned upright by its EXIF tag; transparency is dropped.
    """
    if not Path(path).exists():
        raise InvalidValueError(f"{path}: no such file")
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            deep = picture.mode.startswith(("I", "F"))  # 16-bit and floating-point grey
            if not deep:
                picture = picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")
            pixels = np.asarray(picture)
    except UnidentifiedImageError as error:
        raise InvalidValueError(f"{path}: not an image") from error
    except Image.DecompressionBombError as error:
        raise InvalidValueError(f"{path}: {error}") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
    ) as error:  # truncated or corrupt data, a directory, no permission
        raise InvalidValueError(f"{path}: cannot be read: {error}") from error
    if not np.isfinite(pixels).all():
        raise InvalidValueError(f"{path}: holds NaN or infinite pixels")
    return normalise(pixels)


def grey(image: np.ndarray) -> np.ndarray:
    """Brightness [H, W] of a grey or colour image."""
    return image if image.ndim == 2 else np.asarray(image @ LUMA)


def rgb8(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of a grey or colour image in [0, 1]."""
    colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    return np.asarray(np.rint(255 * colour), np.uint8)


def overlay(image: np.ndarray, labels: np.ndarray, classes: int, strength: float = 0.4) -> np.ndarray:
    """The image tinted with the class colours and with thin white class boundaries, uint8 [H, W, 3]."""
    from skimage.segmentation import find_boundaries

    mixed = (1 - strength) * rgb8(image) + strength * palette(classes)[labels]
    mixed[find_boundaries(labels, mode="inner")] = 255  # type: ignore[no-untyped-call]
    return np.asarray(np.rint(mixed), np.uint8)


def write_atomically(path: Path, write: Callable[[Any], None]) -> None:
    """Calls `write` with a binary file and moves the file to `path` only when it is complete."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp's files are private
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def write_labels(path: Path, labels: np.ndarray, classes: int) -> None:
    """An indexed PNG: the pixel value is the class, the palette its colour."""
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(palette(classes).tobytes())  # turns mode L into P
    write_atomically(path, lambda file: picture.save(file, "PNG"))


def write_rgb(path: Path, pixels: np.ndarray) -> None:
    write_atomically(path, lambda file: Image.fromarray(pixels).save(file, "PNG"))


def write_probability(path: Path, u: np.ndarray) -> None:
    """A grey PNG: black 0, white 1."""
    pixels = np.rint(255 * np.clip(u, 0, 1)).astype(np.uint8)
    write_atomically(path, lambda file: Image.fromarray(pixels).save(file, "PNG"))


def write_npy(path: Path, array: np.ndarray) -> None:
    write_atomically(path, lambda file: np.save(file, array))
