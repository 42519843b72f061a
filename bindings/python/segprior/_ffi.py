"""The C library through ctypes: finding it, its functions, contexts.

Mirrors the prototypes of include/segprior/*.h, structs and constants are in _structs.py; nothing here knows an
array framework.
"""

from __future__ import annotations

import ctypes as ct
import functools
import os
import re
import threading
from pathlib import Path
from typing import Any, NamedTuple

from . import _structs as _c
from ._structs import *  # the others say _ffi.Tensor, _ffi.FLOAT32
from ._structs import BFLOAT16, CPU, FLOAT16, FLOAT32, FLOAT64, INT32, INT64, UINT8, Device, Info, Tensor
from ._version import __version__, source_tree
from .errors import LibraryError, from_status

# The SONAME: the one file that a wheel holds, and in a build folder a link.
LIBRARY_NAME = f"libsegprior.so.{__version__.split('.')[0]}"

_STATUS, _SIZE, _VOID, _REF = ct.c_int32, ct.c_size_t, ct.c_void_p, ct.POINTER
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "version": (ct.c_int32, []),
    "has_cuda": (ct.c_int32, []),
    "status_string": (ct.c_char_p, [_STATUS]),
    "last_error": (ct.c_char_p, []),
    "device_count": (ct.c_int32, [ct.c_int32]),
    "context_create": (_STATUS, [Device, _REF(_VOID)]),
    "context_destroy": (None, [_VOID]),
    "context_set_stream": (_STATUS, [_VOID, _VOID]),
    "context_set_threads": (_STATUS, [_VOID, ct.c_int32]),
    "info_read_sync": (_STATUS, [_VOID, _VOID, ct.c_int64, _REF(Info)]),
    "softmax_opts_init": (_STATUS, [_REF(_c.SoftmaxOpts), _SIZE]),
    "softmax_workspace_size": (
        _STATUS,
        [_VOID, _REF(_c.SoftmaxOpts), _REF(_c.SoftmaxInputs), _REF(_SIZE), _REF(_SIZE)],
    ),
    "softmax_saved_size": (_STATUS, [_VOID, _REF(_c.SoftmaxOpts), _REF(_c.SoftmaxInputs), _REF(_SIZE)]),
    "softmax_forward": (
        _STATUS,
        [
            *[_VOID, _REF(_c.SoftmaxOpts), _REF(_c.SoftmaxInputs), _REF(_c.SoftmaxOutputs)],
            *[_VOID, _SIZE, _VOID, _SIZE],
        ],
    ),
    "softmax_backward": (
        _STATUS,
        [
            *[_VOID, _REF(_c.SoftmaxOpts), _REF(_c.SoftmaxInputs), _REF(Tensor), _REF(Tensor)],
            *[_REF(_c.SoftmaxGrads), _VOID, _SIZE, _VOID, _SIZE],
        ],
    ),
    "softcut_opts_init": (_STATUS, [_REF(_c.SoftcutOpts), _SIZE]),
    "softcut_workspace_size": (
        _STATUS,
        [_VOID, _REF(_c.SoftcutOpts), _REF(_c.SoftcutInputs), _REF(_SIZE), _REF(_SIZE), _REF(_SIZE)],
    ),
    "softcut_saved_size": (_STATUS, [_VOID, _REF(_c.SoftcutOpts), _REF(_c.SoftcutInputs), _REF(_SIZE)]),
    "softcut_forward": (
        _STATUS,
        [
            *[_VOID, _REF(_c.SoftcutOpts), _REF(_c.SoftcutInputs), _REF(_c.SoftcutOutputs)],
            *[_VOID, _SIZE, _VOID, _SIZE],
        ],
    ),
    "softcut_backward": (
        _STATUS,
        [
            *[_VOID, _REF(_c.SoftcutOpts), _REF(_c.SoftcutInputs), _REF(Tensor), _REF(Tensor)],
            *[_REF(_c.SoftcutGrads), _VOID, _SIZE, _VOID, _SIZE],
        ],
    ),
    "softcut_double_backward": (
        _STATUS,
        [
            *[_VOID, _REF(_c.SoftcutOpts), _REF(_c.SoftcutInputs), _REF(Tensor), _REF(Tensor)],
            *[_REF(_c.SoftcutCotangents), _REF(_c.SoftcutSecondGrads), _VOID, _SIZE, _VOID, _SIZE],
        ],
    ),
    "softcut_csr_size": (_STATUS, [_VOID, _REF(_c.SoftcutInputs), _REF(ct.c_int64)]),
    "softcut_csr": (_STATUS, [_VOID, _REF(_c.SoftcutInputs), _VOID, _VOID, _REF(Tensor)]),
    "csr_opts_init": (_STATUS, [_REF(_c.CsrOpts), _SIZE]),
    "csr_solve": (
        _STATUS,
        [
            *[_VOID, _REF(_c.CsrOpts), ct.c_int64, ct.c_int64, _VOID, _VOID],
            *[_REF(Tensor), _REF(Tensor), _REF(Tensor), _REF(Tensor), _VOID],
        ],
    ),
    "loss_opts_init": (_STATUS, [_REF(_c.LossOpts), _SIZE]),
    "loss_workspace_size": (
        _STATUS,
        [_VOID, _REF(_c.LossOpts), _REF(_c.LossInputs), _REF(_SIZE), _REF(_SIZE)],
    ),
    "loss_saved_size": (_STATUS, [_VOID, _REF(_c.LossOpts), _REF(_c.LossInputs), _REF(_SIZE)]),
    "loss_forward": (
        _STATUS,
        [
            *[_VOID, _REF(_c.LossOpts), _REF(_c.LossInputs), _REF(_c.LossOutputs)],
            *[_VOID, _SIZE, _VOID, _SIZE],
        ],
    ),
    "loss_backward": (
        _STATUS,
        [
            *[_VOID, _REF(_c.LossOpts), _REF(_c.LossInputs), _REF(_c.LossCotangents), _REF(_c.LossGrads)],
            *[_VOID, _SIZE, _VOID, _SIZE],
        ],
    ),
    "size_bounds": (
        _STATUS,
        [
            *[_VOID, ct.c_int32, _REF(Tensor), ct.c_int64, ct.c_double, ct.c_double],
            *[_REF(Tensor), _REF(Tensor)],
        ],
    ),
    "proposal_opts_init": (_STATUS, [_REF(_c.ProposalOpts), _SIZE]),
    "proposal_workspace_size": (
        _STATUS,
        [_VOID, _REF(_c.ProposalOpts), _REF(_c.ProposalInputs), _REF(_SIZE)],
    ),
    "proposal_forward": (
        _STATUS,
        [_VOID, _REF(_c.ProposalOpts), _REF(_c.ProposalInputs), _REF(_c.ProposalOutputs), _VOID, _SIZE],
    ),
    "confusion": (_STATUS, [_VOID, _REF(_c.ConfusionInputs), ct.c_int64, _REF(Tensor), _REF(Tensor)]),
    "confusion_scores": (_STATUS, [_VOID, _REF(Tensor), _REF(_c.ConfusionScoresOutputs)]),
    "label_geometry": (_STATUS, [_VOID, *[_REF(Tensor)] * 4]),
    "components_opts_init": (_STATUS, [_REF(_c.ComponentsOpts), _SIZE]),
    "components_workspace_size": (
        _STATUS,
        [_VOID, _REF(_c.ComponentsOpts), _REF(Tensor), _REF(Tensor), _REF(_SIZE)],
    ),
    "components": (_STATUS, [_VOID, _REF(_c.ComponentsOpts), *[_REF(Tensor)] * 5, _VOID, _SIZE]),
}


def _find(name: str, variable: str, how_to_build: str) -> Path:
    """The file beside the package, or in the build folder of the source tree around it; the environment
    variable, if set, is the only place looked at."""
    given = os.environ.get(variable)
    if given:
        path = Path(given)
        if not path.is_file():
            raise LibraryError(f"{variable} = {given!r} is not a file")
        return path
    package = Path(__file__).resolve().parent
    root = source_tree(package)
    places = [folder / name for folder in (package, root and root / "build") if folder is not None]
    for path in places:
        if path.is_file():
            return path
    raise LibraryError(
        f"{name.partition('.')[0]}.so not found: build it ({how_to_build}) or set {variable} to its path. "
        f"Looked for {', '.join(map(str, places))}"
    )


def library_path() -> Path:
    """The file that will be loaded. SEGPRIOR_LIBRARY, if set, is the only place looked at."""
    how_to_build = "cmake --preset release && cmake --build --preset release"
    return _find(LIBRARY_NAME, "SEGPRIOR_LIBRARY", how_to_build)


def jax_library_path() -> Path:
    """The same of the handlers behind segprior.jax, and SEGPRIOR_JAX_LIBRARY."""
    how_to_build = "SEGPRIOR_JAX=1 pip install '.[jax]', or cmake -DSEGPRIOR_JAX=ON where jaxlib is installed"
    return _find("libsegprior_jax.so", "SEGPRIOR_JAX_LIBRARY", how_to_build)


# "inputs.tv_edge" is `tv_edge` to a Python caller; some have other names.
_C_STRUCT = re.compile(r"\b(inputs|opts|outputs|grads|cotangents)\.")
_C_LOSS_COTANGENT = re.compile(r"\bcotangents\.(?:total|terms|items|voxels)\b")
_C_LOSS = re.compile(r"\bsize_(lower|upper|groups)\b")
_C_NAMES = re.compile(r"\b(?:inputs\.(init)|opts\.((?:backward_)?tolerance))\b")
_PYTHON_NAMES = {"init": "x0", "tolerance": "tol", "backward_tolerance": "backward_tol"}
_C_STAR = re.compile(r"\bstar_classes\[(\d+)\]")
# "dtype = 2", "dtype 1", "the dtype of scores, 1": the numbers of core.h.
_C_DTYPE = re.compile(r"(\bdtype (?:= |of \w+, )?)([1-7])\b")
DTYPE_NAMES = {
    FLOAT32: "float32",
    FLOAT64: "float64",
    FLOAT16: "float16",
    BFLOAT16: "bfloat16",
    UINT8: "uint8",
    INT32: "int32",
    INT64: "int64",
}


def _in_python_words(text: str) -> str:
    text = _C_NAMES.sub(lambda found: _PYTHON_NAMES[found[1] or found[2]], text)
    text = _C_LOSS.sub(r"\1", _C_LOSS_COTANGENT.sub("grad", text))
    text = _C_STAR.sub(r"star[\1].cls", _C_STRUCT.sub("", text))
    return _C_DTYPE.sub(lambda found: found[1] + DTYPE_NAMES[int(found[2])], text)


class Library:
    """The loaded library; every C function without its `segprior_` prefix."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            cdll = ct.CDLL(str(path))
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(cdll, "segprior_" + name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)
        except (OSError, AttributeError) as error:
            raise LibraryError(f"{path} cannot be loaded as libsegprior: {error}") from error
        number = self.version()
        self.version_string = f"{number // 10000}.{number // 100 % 100}.{number % 100}"
        # Before 1.0 a minor version may change the ABI.
        if self.version_string.split(".")[:2] != __version__.split(".")[:2]:
            raise LibraryError(f"{path} has version {self.version_string}; this package needs {__version__}")

    def __getattr__(self, name: str) -> Any:  # tells type checkers about the functions set above
        raise AttributeError(name)

    def check(self, status: int) -> None:
        """Raises the exception of a failed call."""
        if status != 0:
            text = self.last_error().decode() or self.status_string(status).decode()
            raise from_status(status, _in_python_words(text))


@functools.cache
def library() -> Library:
    """The library, loaded on first use."""
    return Library(library_path())


class DeviceKey(NamedTuple):
    """A device: CPU or CUDA, and which one."""

    type: int
    ordinal: int

    def __str__(self) -> str:
        return "cpu" if self.type == CPU else f"cuda:{self.ordinal}"


class Context:
    """Owns a segprior_context. Used by the thread that created it only."""

    def __init__(self, device: DeviceKey) -> None:
        self._lib = library()
        self.handle = ct.c_void_p()
        self._configured: tuple[int, int] | None = None
        self._lib.check(self._lib.context_create(Device(*device), ct.byref(self.handle)))

    def configure(self, stream: int, threads: int) -> None:
        if self._configured != (stream, threads):
            self._lib.check(self._lib.context_set_threads(self.handle, threads))
            self._lib.check(self._lib.context_set_stream(self.handle, stream or None))
            self._configured = (stream, threads)

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._lib.context_destroy(self.handle)


_thread = threading.local()


def context(device: DeviceKey) -> Context:
    """This thread's context on a device; made once, destroyed when the thread ends."""
    if not hasattr(_thread, "contexts"):
        _thread.contexts = {}
    if device not in _thread.contexts:
        _thread.contexts[device] = Context(device)
    found: Context = _thread.contexts[device]
    return found
