"""libsegprior_jax.so, which calls the C library inside XLA's programs: finding and registering it."""

from __future__ import annotations

import ctypes as ct
import functools

import jax

from .. import _ffi
from ..errors import LibraryError

OLDEST_JAX = (0, 6)
CALLS = (
    *("softmax_forward", "softmax_backward"),
    *("softcut_forward", "softcut_backward", "softcut_double_backward"),
    *("loss_forward", "loss_backward"),
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
    path = _ffi.jax_library_path()
    platforms = {"cpu": "cpu", **({"CUDA": "cuda"} if lib.has_cuda() else {})}
    try:
        handlers = ct.CDLL(str(path))
        for call in CALLS:
            for platform, suffix in platforms.items():
                symbol = getattr(handlers, f"segprior_{call}_{suffix}")
                jax.ffi.register_ffi_target(f"segprior_{call}", jax.ffi.pycapsule(symbol), platform=platform)
    except (OSError, AttributeError) as error:
        raise LibraryError(f"{path} cannot be loaded as libsegprior_jax: {error}") from error
    except Exception as error:  # jaxlib has no narrower class for a handler of another FFI version
        raise LibraryError(
            f"{path} does not fit jaxlib {jax.lib.__version__}; build it with the headers of that: {error}"
        ) from error
