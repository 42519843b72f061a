"""The C library through ctypes: finding it, its structs and functions, contexts.

Mirrors include/segprior/{core,softmax,softcut}.h; nothing here knows an array framework.
"""

from __future__ import annotations

import ctypes as ct
import functools
import os
import re
import threading
from pathlib import Path
from typing import Any, NamedTuple

from ._version import __version__
from .errors import LibraryError, from_status

LIBRARY_NAME = "libsegprior.so"

CPU, CUDA = 1, 2  # segprior_device.type, the values of DLPack
FLOAT32, FLOAT64, FLOAT16, BFLOAT16, UINT8 = 1, 2, 3, 4, 5  # segprior_tensor.dtype
INT32 = -1  # of row offsets and columns, which the library takes as plain pointers
BACKWARD_LAST, BACKWARD_UNROLLED, BACKWARD_IMPLICIT = 0, 1, 2
SOFTCUT_AUTO, SOFTCUT_CG, SOFTCUT_JACOBI = 0, 1, 2
SOFTCUT_MULTIGRID, SOFTCUT_CHEBYSHEV, SOFTCUT_DIRECT = 3, 4, 5
NORM_L2, NORM_L1 = 0, 1
PATH_AUTO, PATH_STREAMING, PATH_ON_CHIP, PATH_CLUSTER, PATH_PERSISTENT = 0, 1, 2, 3, 4


class Device(ct.Structure):
    _fields_ = [("type", ct.c_int32), ("index", ct.c_int32)]


class Tensor(ct.Structure):
    _fields_ = [
        ("data", ct.c_void_p),
        ("device", Device),
        ("dtype", ct.c_int32),
        ("ndim", ct.c_int32),
        ("shape", ct.POINTER(ct.c_int64)),
        ("strides", ct.POINTER(ct.c_int64)),
        ("byte_offset", ct.c_uint64),
    ]


class Info(ct.Structure):
    _fields_ = [("status", ct.c_int32), ("iterations", ct.c_int32), ("residual", ct.c_double)]


class SoftmaxOpts(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("iterations", ct.c_int32),
        ("accelerate", ct.c_int32),
        ("tolerance", ct.c_double),
        ("check_interval", ct.c_int32),
        ("checkpoint_interval", ct.c_int32),
        ("tv", ct.c_int32),
        ("backward_mode", ct.c_int32),
        ("accumulate", ct.c_int32),
        ("reserved", ct.c_int32),
        ("eps", ct.c_double),
        ("init_eps", ct.c_double),
        ("tv_lam", ct.c_double),
        ("tv_tau", ct.c_double),
        ("spacing", ct.c_double * 3),
        ("td", ct.c_int32),
        ("td_size", ct.c_int32),
        ("td_lam", ct.c_double),
        ("td_sigma", ct.c_double),
        ("star_count", ct.c_int32),
        ("path", ct.c_int32),
        ("star_classes", ct.POINTER(ct.c_int32)),
        ("star_tau", ct.c_double),
        ("implicit_iterations", ct.c_int32),
        ("compact_saved", ct.c_int32),
        ("implicit_tolerance", ct.c_double),
    ]


def _pointers(*names: str) -> list[tuple[str, Any]]:
    return [(name, ct.POINTER(Tensor)) for name in names]


class SoftmaxInputs(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("features", "eps", "tv_lam", "tv_tau", "tv_edge"),
        *_pointers("volume", "volume_lower", "volume_upper", "init_tv_dual", "init_volume_dual"),
        *_pointers("td_lam", "td_sigma", "td_kernel", "td_edge"),
        *_pointers("star_center", "star_tau", "mask", "init_star_dual"),
    ]


class SoftmaxOutputs(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("u", "tv_dual", "volume_dual"),
        ("info", ct.c_void_p),
        *_pointers("star_dual"),
    ]


class SoftmaxGrads(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("features", "eps", "init_eps", "tv_lam", "tv_tau", "tv_edge"),
        *_pointers("volume", "volume_lower", "volume_upper"),
        *_pointers("td_lam", "td_sigma", "td_kernel", "td_edge", "star_tau", "star_center"),
        ("info", ct.c_void_p),
    ]


class SoftcutOpts(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("solver", ct.c_int32),
        ("max_iterations", ct.c_int32),
        ("tolerance", ct.c_double),
        ("norm", ct.c_int32),
        ("absolute", ct.c_int32),
        ("batch", ct.c_int32),
        ("accumulate", ct.c_int32),
        ("backward_tolerance", ct.c_double),
        ("backward_max_iterations", ct.c_int32),
        ("path", ct.c_int32),
    ]


# The edges and diagonals of every struct of softcut.h.
_FAMILIES = [("edges", ct.POINTER(Tensor) * 3), ("diagonals", ct.POINTER(Tensor) * 2)]


class SoftcutInputs(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("scores"),
        *_FAMILIES,
        *_pointers("conductance", "init"),
    ]


class SoftcutOutputs(ct.Structure):
    _fields_ = [("struct_size", ct.c_size_t), *_pointers("x"), ("info", ct.c_void_p)]


class SoftcutGrads(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("scores"),
        *_FAMILIES,
        *_pointers("conductance"),
        ("info", ct.c_void_p),
    ]


class SoftcutCotangents(ct.Structure):
    _fields_ = [("struct_size", ct.c_size_t), *_pointers("scores"), *_FAMILIES, *_pointers("conductance")]


class SoftcutSecondGrads(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("grad_x", "scores"),
        *_FAMILIES,
        *_pointers("conductance"),
        ("info", ct.c_void_p),
    ]


class CsrOpts(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("max_iterations", ct.c_int32),
        ("preconditioner", ct.c_int32),
        ("tolerance", ct.c_double),
    ]


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
    "softmax_opts_init": (_STATUS, [_REF(SoftmaxOpts), _SIZE]),
    "softmax_workspace_size": (
        _STATUS,
        [_VOID, _REF(SoftmaxOpts), _REF(SoftmaxInputs), _REF(_SIZE), _REF(_SIZE)],
    ),
    "softmax_saved_size": (_STATUS, [_VOID, _REF(SoftmaxOpts), _REF(SoftmaxInputs), _REF(_SIZE)]),
    "softmax_forward": (
        _STATUS,
        [_VOID, _REF(SoftmaxOpts), _REF(SoftmaxInputs), _REF(SoftmaxOutputs), _VOID, _SIZE, _VOID, _SIZE],
    ),
    "softmax_backward": (
        _STATUS,
        [
            *[_VOID, _REF(SoftmaxOpts), _REF(SoftmaxInputs), _REF(Tensor), _REF(Tensor)],
            *[_REF(SoftmaxGrads), _VOID, _SIZE, _VOID, _SIZE],
        ],
    ),
    "softcut_opts_init": (_STATUS, [_REF(SoftcutOpts), _SIZE]),
    "softcut_workspace_size": (
        _STATUS,
        [_VOID, _REF(SoftcutOpts), _REF(SoftcutInputs), _REF(_SIZE), _REF(_SIZE), _REF(_SIZE)],
    ),
    "softcut_saved_size": (_STATUS, [_VOID, _REF(SoftcutOpts), _REF(SoftcutInputs), _REF(_SIZE)]),
    "softcut_forward": (
        _STATUS,
        [_VOID, _REF(SoftcutOpts), _REF(SoftcutInputs), _REF(SoftcutOutputs), _VOID, _SIZE, _VOID, _SIZE],
    ),
    "softcut_backward": (
        _STATUS,
        [
            *[_VOID, _REF(SoftcutOpts), _REF(SoftcutInputs), _REF(Tensor), _REF(Tensor)],
            *[_REF(SoftcutGrads), _VOID, _SIZE, _VOID, _SIZE],
        ],
    ),
    "softcut_double_backward": (
        _STATUS,
        [
            *[_VOID, _REF(SoftcutOpts), _REF(SoftcutInputs), _REF(Tensor), _REF(Tensor)],
            *[_REF(SoftcutCotangents), _REF(SoftcutSecondGrads), _VOID, _SIZE, _VOID, _SIZE],
        ],
    ),
    "softcut_csr_size": (_STATUS, [_VOID, _REF(SoftcutInputs), _REF(ct.c_int64)]),
    "softcut_csr": (_STATUS, [_VOID, _REF(SoftcutInputs), _VOID, _VOID, _REF(Tensor)]),
    "csr_opts_init": (_STATUS, [_REF(CsrOpts), _SIZE]),
    "csr_solve": (
        _STATUS,
        [
            *[_VOID, _REF(CsrOpts), ct.c_int64, ct.c_int64, _VOID, _VOID],
            *[_REF(Tensor), _REF(Tensor), _REF(Tensor), _REF(Tensor), _VOID],
        ],
    ),
}


def _candidates() -> list[Path]:
    """Where the library may lie: beside the package, or in the build folder of the source tree around it."""
    package = Path(__file__).resolve().parent
    places = [package / LIBRARY_NAME]
    root = package.parents[2]
    if (root / "include" / "segprior" / "core.h").is_file():
        places.append(root / "build" / LIBRARY_NAME)
    return places


def library_path() -> Path:
    """The file that will be loaded. SEGPRIOR_LIBRARY, if set, is the only place looked at."""
    given = os.environ.get("SEGPRIOR_LIBRARY")
    if given:
        path = Path(given)
        if not path.is_file():
            raise LibraryError(f"SEGPRIOR_LIBRARY = {given!r} is not a file")
        return path
    places = _candidates()
    for path in places:
        if path.is_file():
            return path
    raise LibraryError(
        f"{LIBRARY_NAME} not found: build it (cmake --preset release && cmake --build --preset release) "
        f"or set SEGPRIOR_LIBRARY to its path. Looked for {', '.join(map(str, places))}"
    )


# "inputs.tv_edge" is `tv_edge` to a Python caller; some have other names.
_C_STRUCT = re.compile(r"\b(inputs|opts|outputs|grads|cotangents)\.")
_C_NAMES = re.compile(r"\b(?:inputs\.(init)|opts\.((?:backward_)?tolerance))\b")
_PYTHON_NAMES = {"init": "x0", "tolerance": "tol", "backward_tolerance": "backward_tol"}
_C_STAR = re.compile(r"\bstar_classes\[(\d+)\]")
# "dtype = 2", "dtype 1", "the dtype of scores, 1": the numbers of core.h.
_C_DTYPE = re.compile(r"(\bdtype (?:= |of \w+, )?)([1-5])\b")
DTYPE_NAMES = {
    FLOAT32: "float32",
    FLOAT64: "float64",
    FLOAT16: "float16",
    BFLOAT16: "bfloat16",
    UINT8: "uint8",
    INT32: "int32",
}


def _in_python_words(text: str) -> str:
    text = _C_NAMES.sub(lambda found: _PYTHON_NAMES[found[1] or found[2]], text)
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
        self._lib.check(self._lib.context_create(Device(*device), ct.byref(self.handle)))

    def configure(self, stream: int, threads: int) -> None:
        self._lib.check(self._lib.context_set_threads(self.handle, threads))
        self._lib.check(self._lib.context_set_stream(self.handle, stream or None))

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
