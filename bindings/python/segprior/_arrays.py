"""Arrays of any framework as segprior_tensor views, without copies.

NumPy arrays are read through their own interface (so that read-only ones work); everything else through
`__dlpack__`. The capsule is borrowed, not consumed: a view keeps it alive and its destructor then releases
the producer's memory, as the DLPack rules say for a capsule that nobody took over.
"""

from __future__ import annotations

import ctypes as ct
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _ffi
from ._frameworks import NumpyFramework, framework_for, numpy_dtype, root_package
from .errors import InvalidTypeError, InvalidValueError


class _DLTensor(ct.Structure):
    _fields_ = [
        ("data", ct.c_void_p),
        ("device_type", ct.c_int32),
        ("device_id", ct.c_int32),
        ("ndim", ct.c_int32),
        ("code", ct.c_uint8),
        ("bits", ct.c_uint8),
        ("lanes", ct.c_uint16),
        ("shape", ct.POINTER(ct.c_int64)),
        ("strides", ct.POINTER(ct.c_int64)),
        ("byte_offset", ct.c_uint64),
    ]


class _Managed(ct.Structure):
    _fields_ = [("dl_tensor", _DLTensor)]


class _ManagedVersioned(ct.Structure):
    _fields_ = [
        ("major", ct.c_uint32),
        ("minor", ct.c_uint32),
        ("manager_ctx", ct.c_void_p),
        ("deleter", ct.c_void_p),
        ("flags", ct.c_uint64),
        ("dl_tensor", _DLTensor),
    ]


_LAYOUTS: dict[bytes, Any] = {b"dltensor": _Managed, b"dltensor_versioned": _ManagedVersioned}
# (type code, bits) of DLPack. A boolean is a byte that holds 0 or 1.
_DL_DTYPES = {
    **{(2, 32): _ffi.FLOAT32, (2, 64): _ffi.FLOAT64, (2, 16): _ffi.FLOAT16, (4, 16): _ffi.BFLOAT16},
    **{(1, 8): _ffi.UINT8, (6, 8): _ffi.UINT8, (0, 32): _ffi.INT32},
    **{(0, 64): _ffi.INT64},
}
# ml_dtypes' bfloat16 goes by its name: the package is not imported here.
_NUMPY_NAMES = {
    **{"float32": _ffi.FLOAT32, "float64": _ffi.FLOAT64, "float16": _ffi.FLOAT16, "bfloat16": _ffi.BFLOAT16},
    **{"uint8": _ffi.UINT8, "bool": _ffi.UINT8, "int32": _ffi.INT32},
    **{"int64": _ffi.INT64},
}
# What an argument may be.
FIELD = (_ffi.FLOAT32, _ffi.FLOAT64, _ffi.FLOAT16, _ffi.BFLOAT16)
PARAMETER = (_ffi.FLOAT32, _ffi.FLOAT64)
MASK = (_ffi.UINT8,)
LABELS = (_ffi.UINT8, _ffi.INT32, _ffi.INT64)
INDEX = (_ffi.INT32,)
INTEGERS = (_ffi.INT32, _ffi.INT64)
SOFT_LABELS = (*FIELD, _ffi.UINT8)
ANY = (*FIELD, _ffi.INT32, _ffi.INT64)  # of results
_DTYPE_RULES = {
    FIELD: "float32, float64, float16 or bfloat16",
    ANY: "float32, float64, float16, bfloat16, int32 or int64",
    PARAMETER: "float32 or float64",
    MASK: "bool or uint8",
    LABELS: "bool, uint8, int32 or int64",
    INDEX: "int32",
    INTEGERS: "int32 or int64",
    SOFT_LABELS: "float32, float64, float16, bfloat16, bool or uint8",
}
# DLPack's device types that the library takes: pinned memory is host memory, managed memory is CUDA's.
_DL_DEVICES = {1: _ffi.CPU, 2: _ffi.CUDA, 3: _ffi.CPU, 13: _ffi.CUDA}

_capsule_is_valid = ct.pythonapi.PyCapsule_IsValid
_capsule_is_valid.restype, _capsule_is_valid.argtypes = ct.c_int, [ct.py_object, ct.c_char_p]
_capsule_pointer = ct.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = ct.c_void_p, [ct.py_object, ct.c_char_p]


class View:
    """A segprior_tensor over somebody's memory, and what keeps it alive: the array and its capsule."""

    def __init__(
        self, keep: tuple[Any, Any], address: int, device: _ffi.DeviceKey, dtype: int, shape: Sequence[int]
    ) -> None:
        self.keep = keep
        self.address = address
        self.device = device
        self.dtype = dtype
        self.shape = tuple(shape)
        self._extents = (ct.c_int64 * len(self.shape))(*self.shape)
        self.tensor = _ffi.Tensor(
            address, _ffi.Device(*device), dtype, len(self.shape), self._extents, None, 0
        )

    def reshaped(self, shape: Sequence[int]) -> View:
        """The same memory with another shape of as many elements."""
        return View(self.keep, self.address, self.device, self.dtype, shape)

    def to_numpy(self) -> Any:
        """The same memory as a NumPy array; host memory only."""
        kind = numpy_dtype(self.dtype)
        count = int(np.prod(self.shape, dtype=np.int64))
        if count == 0:
            return np.empty(self.shape, kind)
        memory = (ct.c_char * (count * kind.itemsize)).from_address(self.address)
        return np.frombuffer(memory, kind).reshape(self.shape)


def is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "__dlpack__")


def _require_dtype(name: str, found: int | None, allowed: tuple[int, ...], text: Any) -> int:
    if found is None or found not in allowed:
        raise InvalidTypeError(f"{name} has dtype {text}; it must be {_DTYPE_RULES[allowed]}")
    return found


def _require_contiguous(name: str, shape: Sequence[int], strides: Sequence[float]) -> None:
    """C order: an axis of one element may have any stride, an empty array too."""
    expected = 1
    if 0 in shape:
        return
    for extent, stride in zip(reversed(shape), reversed(strides)):
        if extent != 1 and stride != expected:
            raise InvalidValueError(
                f"{name} is not C-contiguous: shape {tuple(shape)}, strides {tuple(strides)} in elements; "
                "pass a contiguous array (nothing is copied silently)"
            )
        expected *= extent


def _view_numpy(array: np.ndarray, name: str, allowed: tuple[int, ...]) -> View:
    known = _NUMPY_NAMES.get(array.dtype.name) if array.dtype.isnative else None
    dtype = _require_dtype(name, known, allowed, array.dtype)
    if not array.flags.c_contiguous:
        strides = tuple(stride / array.itemsize for stride in array.strides)
        _require_contiguous(name, array.shape, strides)
    return View((array, None), array.ctypes.data, _ffi.DeviceKey(_ffi.CPU, 0), dtype, array.shape)


def _capsule(array: Any, name: str, stream: int | None) -> Any:
    package = root_package(array)
    if package == "torch":
        array = array.detach()  # torch refuses to export a tensor that requires grad
    elif package == "jax":
        array.block_until_ready()  # its computations are asynchronous on the CPU too
    device_type = int(array.__dlpack_device__()[0])
    arguments: dict[str, Any] = {}
    if _DL_DEVICES.get(device_type) == _ffi.CUDA:
        # The producer makes its pending work visible to our stream; -1: it is the producer's own stream.
        # DLPack spells the legacy default stream 1.
        arguments["stream"] = -1 if stream is None else stream or 1
    try:
        try:
            return array.__dlpack__(max_version=(1, 0), **arguments)
        except TypeError:  # a producer older than DLPack 1.0
            return array.__dlpack__(**arguments)
    except BufferError as error:
        raise InvalidValueError(f"{name} cannot be exported through DLPack: {error}") from error


def _view_dlpack(array: Any, name: str, stream: int | None, allowed: tuple[int, ...]) -> View:
    capsule = _capsule(array, name, stream)
    layout = next((key for key in _LAYOUTS if _capsule_is_valid(capsule, key)), None)
    if layout is None:
        raise InvalidTypeError(f"{name}: __dlpack__ returned {capsule!r}, not an unused DLPack capsule")
    managed = ct.cast(_capsule_pointer(capsule, layout), ct.POINTER(_LAYOUTS[layout])).contents
    dl: _DLTensor = managed.dl_tensor
    known = _DL_DTYPES.get((dl.code, dl.bits)) if dl.lanes == 1 else None
    spelled = getattr(array, "dtype", f"(DLPack code {dl.code}, {dl.bits} bits)")
    dtype = _require_dtype(name, known, allowed, spelled)
    device = _DL_DEVICES.get(dl.device_type)
    if device is None:
        raise InvalidValueError(
            f"{name} lives on DLPack device type {dl.device_type}; only CPU and CUDA work"
        )
    shape = dl.shape[: dl.ndim]
    if dl.strides:
        _require_contiguous(name, shape, dl.strides[: dl.ndim])
    key = _ffi.DeviceKey(device, dl.device_id if device == _ffi.CUDA else 0)
    address = (dl.data or 0) + dl.byte_offset
    return View((array, capsule), address, key, dtype, shape)


def view(array: Any, name: str, stream: int | None = None, allowed: tuple[int, ...] = PARAMETER) -> View:
    """A view of `array`, called `name` in errors, whose dtype must be one of `allowed`: FIELD, MASK, ...

    `stream`: where its memory will be used, if that is not the stream on which its framework works now.
    """
    if isinstance(array, np.ndarray):
        return _view_numpy(array, name, allowed)
    if not hasattr(array, "__dlpack__"):
        raise InvalidTypeError(f"{name} is {type(array).__name__}; it must be an array (NumPy or __dlpack__)")
    return _view_dlpack(array, name, stream, allowed)


def repeat_rows(array: Any, source: View, rows: int, stream: int) -> View:
    """A view of an [I] array as [rows, I]; copies unless rows is 1.

    `source`: its view, exported to `stream`; the copy is made there, where it will be read.
    """
    if rows == 1:
        return source.reshaped((1, *source.shape))
    if source.device.type == _ffi.CPU:
        return view(np.ascontiguousarray(np.broadcast_to(source.to_numpy(), (rows, *source.shape))), "")
    framework = framework_for(array, source.device)
    with framework.on_stream(stream):
        return view(framework.repeat_rows(array, rows), "")


def stack(arrays: Sequence[Any], sources: Sequence[View], shape: Sequence[int], stream: int) -> View:
    """A view of `arrays`, each broadcast to `shape`, along a new second axis; copies, like `repeat_rows`."""
    if sources[0].device.type == _ffi.CPU:
        return view(NumpyFramework().stack([source.to_numpy() for source in sources], shape), "")
    framework = framework_for(arrays[0], sources[0].device)
    with framework.on_stream(stream):
        own = [array.reshape(source.shape) for array, source in zip(arrays, sources)]
        return view(framework.stack(own, shape), "")


def pad_rows(array: Any, source: View, rows: int, stream: int) -> View:
    """A view of an [R, I] array of reals as [rows, I], the new rows NaN; copies, like `repeat_rows`."""
    if source.device.type == _ffi.CPU:
        return view(NumpyFramework().pad_rows(source.to_numpy(), rows), "")
    framework = framework_for(array, source.device)
    with framework.on_stream(stream):
        return view(framework.pad_rows(array, rows), "")


def to_integers(array: Any, source: View, dtype: int, stream: int) -> View:
    """A view of an array of INTEGERS as one of `dtype`; copies if it must, like `repeat_rows`."""
    if source.dtype == dtype:
        return source
    if source.device.type == _ffi.CPU:
        return view(NumpyFramework().to_integers(source.to_numpy(), dtype), "", allowed=INTEGERS)
    framework = framework_for(array, source.device)
    with framework.on_stream(stream):
        return view(framework.to_integers(array, dtype), "", allowed=INTEGERS)


def put_row(framework: NumpyFramework, array: Any, target: View, row: int, given: Any, source: View) -> None:
    """array[row] = given, the rest of `array` 0; `target` and `source` are their views, on one device."""
    if source.device.type == _ffi.CPU:
        NumpyFramework().put_row(target.to_numpy(), row, source.to_numpy())
    else:
        framework.put_row(array, row, given)
