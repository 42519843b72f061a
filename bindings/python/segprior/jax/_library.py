"""libsegprior_jax.so, which calls the C library inside XLA's programs: finding and registering it."""

from __future__ import annotations

import ctypes as ct
import functools
import os
from pathlib import Path

import jax

from .. import _ffi
from .._version import source_tree
from ..errors import LibraryError

LIBRARY_NAME = "libsegprior_jax.so"
OLDEST_JAX = (0, 6)
CALLS = (
    *("softmax_forward", "softmax_backward"),
    *("softcut_forward", "softcut_backward", "softcut_double_backward"),
    *("loss_forward", "loss_backward"),
)


def _path() -> Path:
    """The file that will be loaded. SEGPRIOR_JAX_LIBRARY, if set, is the only place looked at."""
    given = os.environ.get("SEGPRIOR_JAX_LIBRARY")
    if given:
        path = Path(given)
        if not path.is_file():
            raise LibraryError(f"SEGPRIOR_JAX_LIBRARY = {given!r} is not a file")
        return path
    package = Path(__file__).resolve().parents[1]
    places = [package / LIBRARY_NAME]
    root = source_tree(package)
    if root is not None:
        places.append(root / "build" / LIBRARY_NAME)
    for path in places:
        if path.is_file():
            return path
    raise LibraryError(
        f"{LIBRARY_NAME} not found: it is built with the library where jaxlib's headers are found "
        "(SEGPRIOR_XLA_INCLUDE_DIR, as `python -c 'import jax; print(jax.ffi.include_dir())'` prints it); "
        f"or set SEGPRIOR_JAX_LIBRARY to its path. Looked for {', '.join(map(str, places))}"
    )


def require_jax() -> None:
    """jaxlib 0.6 is the first that tells a handler its device. Handlers built with its headers run in later
    ones too; the other way round they are refused, see `register`."""
    if jax.__version_info__[:2] < OLDEST_JAX:
        oldest = ".".join(map(str, OLDEST_JAX))
        raise LibraryError(f"segprior.jax needs jax >= {oldest}; this is jax {jax.__version__}")


@functools.cache
def register() -> None:
    """Makes the handlers known to XLA, on the platforms that the C library was built for."""
    lib = _ffi.library()  # before the handlers, whose undefined symbols are then this very library's
    path = _path()
    platforms = {"cpu": "cpu", **({"CUDA": "cuda"} if lib.has_cuda() else {})}
    try:
        handlers = ct.CDLL(str(path))
        for call in CALLS:
            for platform, suffix in platforms.items():
                symbol = getattr(handlers, f"segprior_{call}_{suffix}")
                jax.ffi.register_ffi_target(f"segprior_{call}", jax.ffi.pycapsule(symbol), platform=platform)
    except (OSError, AttributeError) as error:
        raise LibraryError(f"{path} cannot be loaded as {LIBRARY_NAME}: {error}") from error
    except Exception as error:  # jaxlib has no narrower class for a handler of another FFI version
        raise LibraryError(
            f"{path} does not fit jaxlib {jax.lib.__version__}; build it with the headers of that: {error}"
        ) from error
