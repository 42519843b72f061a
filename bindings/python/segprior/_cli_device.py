"""Where `selftest` and `bench` compute: the CPU with NumPy, CUDA devices through torch or CuPy."""

from __future__ import annotations

import importlib
from typing import Any, Callable, NamedTuple

import numpy as np

from . import _ffi
from .errors import InvalidValueError


class Place(NamedTuple):
    """A device and how arrays get there and back."""

    name: str  #: "cpu", "cuda:0", ...
    put: Callable[[np.ndarray], Any]
    get: Callable[[Any], np.ndarray]
    wait: Callable[[], None]  #: until all work of the device is done


def places(wanted: str | None = None) -> tuple[list[Place], list[str]]:
    """The usable devices, and a sentence for each that is there but cannot be used.

    Args:
        wanted: the one device to take, "cpu" or "cuda:N"; None: all.

    Raises:
        InvalidValueError: `wanted` is no device of this machine and library, or cannot be used.
    """
    found = [Place("cpu", lambda array: array, np.asarray, lambda: None)]
    left_out = []
    for ordinal in range(_ffi.library().device_count(_ffi.CUDA)):
        place = _with_torch(ordinal) or _with_cupy(ordinal)
        if place is not None:
            found.append(place)
        else:
            left_out.append(f"cuda:{ordinal}: not used, because its arrays need PyTorch with CUDA, or CuPy")
    if wanted is None:
        return found, left_out
    for text in left_out:
        if text.startswith(wanted + ":"):
            raise InvalidValueError(text)
    chosen = [place for place in found if place.name == wanted]
    if not chosen:
        names = ", ".join(place.name for place in found)
        raise InvalidValueError(f"device = {wanted!r}; it must be one of {names}")
    return chosen, []


def _import(name: str) -> Any:
    """The module; None if it is not installed, or does not load on this machine."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):
        return None


def _with_torch(ordinal: int) -> Place | None:
    torch = _import("torch")
    if torch is None or not torch.cuda.is_available() or ordinal >= torch.cuda.device_count():
        return None
    device = f"cuda:{ordinal}"
    return Place(
        device,
        lambda array: torch.from_numpy(array).to(device),
        lambda array: np.asarray(array.cpu() if torch.is_tensor(array) else array),
        lambda: torch.cuda.synchronize(device),
    )


def _with_cupy(ordinal: int) -> Place | None:
    cupy = _import("cupy")
    if cupy is None:
        return None

    def put(array: np.ndarray) -> Any:
        with cupy.cuda.Device(ordinal):
            return cupy.asarray(array)

    def wait() -> None:
        cupy.cuda.Device(ordinal).synchronize()

    return Place(f"cuda:{ordinal}", put, lambda array: np.asarray(cupy.asnumpy(array)), wait)
