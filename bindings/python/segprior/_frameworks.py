"""What the package needs from an array framework: allocation on a device, its current stream, broadcasting.

Outputs are created in the framework of the array that a call is about, on its device. No framework is
imported unless the caller already uses it. Three answers to "who allocates":

* NumPy, and any other CPU array that only speaks DLPack: NumPy.
* torch and CuPy: their own allocators, under the stream that the call uses.
* JAX: its arrays are immutable, so results are computed into aligned NumPy memory that JAX then adopts
  through DLPack without a copy. CPU only: there is no way to hand CUDA memory to JAX from outside.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from . import _ffi
from .errors import InvalidTypeError, NotSupportedError

_NUMPY_DTYPE: dict[int, Any] = {
    _ffi.FLOAT32: np.dtype(np.float32),
    _ffi.FLOAT64: np.dtype(np.float64),
    _ffi.FLOAT16: np.dtype(np.float16),
    _ffi.UINT8: np.dtype(np.uint8),
    _ffi.INT32: np.dtype(np.int32),
    _ffi.INT64: np.dtype(np.int64),
}
_ALIGNMENT = 256  # of workspace and saved state; also enough for JAX to adopt memory


def numpy_dtype(dtype: int) -> Any:
    """NumPy's dtype for the library's code; bfloat16 is that of the package ml_dtypes."""
    if dtype == _ffi.BFLOAT16:
        if "ml_dtypes" not in sys.modules:
            raise InvalidTypeError("NumPy results of dtype bfloat16 need `import ml_dtypes` first")
        return np.dtype(sys.modules["ml_dtypes"].bfloat16)
    return _NUMPY_DTYPE[dtype]


def aligned_bytes(count: int) -> Any:
    """Uninitialised host memory, aligned to 256 bytes."""
    raw = np.empty(count + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + count]


def _clipped(array: Any, dtype: int) -> Any:
    return array.clip(-(2**31), 2**31 - 1) if dtype == _ffi.INT32 else array


class NumpyFramework:
    """Allocates NumPy arrays; the base of the others."""

    def empty(self, shape: Sequence[int], dtype: int) -> Any:
        """An uninitialised array; `dtype` is the library's code."""
        return np.empty(shape, numpy_dtype(dtype))

    def numbers(self, values: np.ndarray, dtype: int) -> Any:
        """Host numbers as an array on the device."""
        return np.asarray(values, numpy_dtype(dtype), order="C")

    def buffer(self, count: int) -> tuple[Any, int]:
        """`count` bytes of device memory, aligned to 256, and their address."""
        raw = aligned_bytes(count)
        return raw, raw.ctypes.data

    def repeat_rows(self, array: Any, rows: int) -> Any:
        """[I] to [rows, I]."""
        return np.ascontiguousarray(np.broadcast_to(array, (rows, *array.shape)))

    def stack(self, arrays: Sequence[Any], shape: Sequence[int]) -> Any:
        """Arrays, each broadcast to `shape`, along a new second axis: [shape[0], len(arrays), *shape[1:]]."""
        # The stack of broadcast arrays need not be C-contiguous.
        return np.ascontiguousarray(np.stack([np.broadcast_to(array, tuple(shape)) for array in arrays], 1))

    def split(self, array: Any) -> list[Any]:
        """The reverse of `stack`, contiguous: [B, M, ...] to M arrays [B, ...]."""
        return [np.ascontiguousarray(array[:, m]) for m in range(array.shape[1])]

    def sum_rows(self, array: Any) -> Any:
        """[B, ...] to [...]."""
        return array.sum(0)

    def pad_rows(self, array: Any, rows: int) -> Any:
        """[R, I] to [rows, I], the new rows NaN."""
        return np.pad(array, ((0, rows - len(array)), (0, 0)), constant_values=np.nan)

    def to_integers(self, array: Any, dtype: int) -> Any:
        """int32 as int64, or the reverse; what the latter cannot hold becomes the value nearest to it."""
        return _clipped(array, dtype).astype(numpy_dtype(dtype))

    def put_row(self, array: Any, row: int, source: Any) -> None:
        """array[row] = source, the rest of `array`, which `empty` made, 0."""
        array[...] = 0
        array[row] = source

    def to_host(self, array: Any) -> np.ndarray:
        """Waits for the work on the current stream."""
        return np.asarray(array)

    def weighted_sum(self, counts: Any, weights: Sequence[float]) -> Any:
        """[..., n] integers times [n], float64 [...]."""
        return counts @ np.array(weights, np.float64)

    def finish(self, array: Any) -> Any:
        """What the caller gets for an array made by `empty`."""
        return array

    def current_stream(self) -> int:
        """The stream (a cudaStream_t as an integer) on which the caller works now."""
        return 0

    def on_stream(self, stream: int) -> AbstractContextManager[Any]:
        """Allocations and the framework's own work inside belong to `stream`."""
        return contextlib.nullcontext()

    def wait(self, waiting: int, other: int) -> None:
        """What the stream `waiting` gets from now on comes after what `other` has got until now."""

    def hold(self, arrays: Sequence[Any], owners: set[int], stream: int) -> None:
        """Memory of `arrays`, if freed, is not reused before the work now queued on `stream` is done.

        `owners`: the streams they may have been allocated on, without `stream`.
        """


class JaxFramework(NumpyFramework):
    def empty(self, shape: Sequence[int], dtype: int) -> Any:
        kind = numpy_dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        return aligned_bytes(count * kind.itemsize).view(kind).reshape(tuple(shape))

    def finish(self, array: Any) -> Any:
        jax = sys.modules["jax"]
        if array.size == 0:
            return jax.numpy.asarray(array)
        if array.dtype.name == "bfloat16":  # which NumPy does not export
            return jax.lax.bitcast_convert_type(
                jax.dlpack.from_dlpack(array.view(np.uint16)), jax.numpy.bfloat16
            )
        return jax.dlpack.from_dlpack(array)


class TorchFramework(NumpyFramework):
    def __init__(self, device: _ffi.DeviceKey) -> None:
        self._torch: Any = sys.modules["torch"]
        self._cuda = device.type == _ffi.CUDA
        self._device = self._torch.device(str(device))

    def empty(self, shape: Sequence[int], dtype: int) -> Any:
        kind = getattr(self._torch, _ffi.DTYPE_NAMES[dtype])
        return self._torch.empty(tuple(shape), dtype=kind, device=self._device)

    def numbers(self, values: np.ndarray, dtype: int) -> Any:
        # torch.tensor, not from_numpy: a copy that also works on another device.
        kind = getattr(self._torch, _ffi.DTYPE_NAMES[dtype])
        return self._torch.tensor(np.asarray(values, order="C"), dtype=kind, device=self._device)

    def buffer(self, count: int) -> tuple[Any, int]:
        raw = self._torch.empty(count + _ALIGNMENT, dtype=self._torch.uint8, device=self._device)
        return raw, raw.data_ptr() + -raw.data_ptr() % _ALIGNMENT

    def repeat_rows(self, array: Any, rows: int) -> Any:
        return array.detach().expand(rows, *array.shape).contiguous()

    def stack(self, arrays: Sequence[Any], shape: Sequence[int]) -> Any:
        own = [
            a.detach() if isinstance(a, self._torch.Tensor) else self._torch.from_dlpack(a) for a in arrays
        ]
        return self._torch.stack([array.expand(*shape) for array in own], 1)

    def split(self, array: Any) -> list[Any]:
        return [array[:, m].contiguous() for m in range(array.shape[1])]

    def pad_rows(self, array: Any, rows: int) -> Any:
        more = (0, 0, 0, rows - len(array))
        return self._torch.nn.functional.pad(array.detach(), more, value=float("nan"))

    def put_row(self, array: Any, row: int, source: Any) -> None:
        own = source if isinstance(source, self._torch.Tensor) else self._torch.from_dlpack(source)
        super().put_row(array, row, own)

    def to_integers(self, array: Any, dtype: int) -> Any:
        return _clipped(array, dtype).to(getattr(self._torch, _ffi.DTYPE_NAMES[dtype])).contiguous()

    def to_host(self, array: Any) -> np.ndarray:
        found: np.ndarray = array.cpu().numpy()
        return found

    def weighted_sum(self, counts: Any, weights: Sequence[float]) -> Any:
        factors = self._torch.tensor(list(weights), dtype=self._torch.float64, device=self._device)
        return (counts * factors).sum(-1)

    def current_stream(self) -> int:
        return int(self._torch.cuda.current_stream(self._device).cuda_stream) if self._cuda else 0

    def on_stream(self, stream: int) -> AbstractContextManager[Any]:
        if not self._cuda or stream == self.current_stream():
            return contextlib.nullcontext()
        found: AbstractContextManager[Any] = self._torch.cuda.stream(self._stream(stream))
        return found

    def wait(self, waiting: int, other: int) -> None:
        if self._cuda:
            self._stream(waiting).wait_stream(self._stream(other))

    def hold(self, arrays: Sequence[Any], owners: set[int], stream: int) -> None:
        for array in arrays:
            if isinstance(array, self._torch.Tensor) and array.is_cuda:
                array.record_stream(self._stream(stream))

    def _stream(self, stream: int) -> Any:
        return self._torch.cuda.ExternalStream(stream, device=self._device)


class CupyFramework(NumpyFramework):
    def __init__(self, device: _ffi.DeviceKey) -> None:
        self._cupy: Any = sys.modules["cupy"]
        self._index = device.ordinal

    def empty(self, shape: Sequence[int], dtype: int) -> Any:
        with self._cupy.cuda.Device(self._index):
            return self._cupy.empty(tuple(shape), numpy_dtype(dtype))

    def numbers(self, values: np.ndarray, dtype: int) -> Any:
        with self._cupy.cuda.Device(self._index):
            return self._cupy.asarray(np.asarray(values, numpy_dtype(dtype), order="C"))

    def buffer(self, count: int) -> tuple[Any, int]:
        with self._cupy.cuda.Device(self._index):
            raw = self._cupy.empty(count + _ALIGNMENT, np.uint8)
        return raw, raw.data.ptr + -raw.data.ptr % _ALIGNMENT

    def repeat_rows(self, array: Any, rows: int) -> Any:
        return self._cupy.ascontiguousarray(self._cupy.broadcast_to(array, (rows, *array.shape)))

    def stack(self, arrays: Sequence[Any], shape: Sequence[int]) -> Any:
        own = [a if isinstance(a, self._cupy.ndarray) else self._cupy.from_dlpack(a) for a in arrays]
        wide = [self._cupy.broadcast_to(array, tuple(shape)) for array in own]
        return self._cupy.ascontiguousarray(self._cupy.stack(wide, 1))

    def split(self, array: Any) -> list[Any]:
        return [self._cupy.ascontiguousarray(array[:, m]) for m in range(array.shape[1])]

    def pad_rows(self, array: Any, rows: int) -> Any:
        return self._cupy.pad(array, ((0, rows - len(array)), (0, 0)), constant_values=np.nan)

    def put_row(self, array: Any, row: int, source: Any) -> None:
        own = source if isinstance(source, self._cupy.ndarray) else self._cupy.from_dlpack(source)
        super().put_row(array, row, own)

    def to_host(self, array: Any) -> np.ndarray:
        found: np.ndarray = self._cupy.asnumpy(array)
        return found

    def weighted_sum(self, counts: Any, weights: Sequence[float]) -> Any:
        with self._cupy.cuda.Device(self._index):
            return counts @ self._cupy.array(weights, np.float64)

    def current_stream(self) -> int:
        return int(self._cupy.cuda.get_current_stream(self._index).ptr)

    def on_stream(self, stream: int) -> AbstractContextManager[Any]:
        if stream == self.current_stream():
            return contextlib.nullcontext()
        found: AbstractContextManager[Any] = self._cupy.cuda.ExternalStream(stream, self._index)
        return found

    def wait(self, waiting: int, other: int) -> None:
        stream = self._cupy.cuda.ExternalStream
        with self._cupy.cuda.Device(self._index):
            stream(waiting, self._index).wait_event(stream(other, self._index).record())

    def hold(self, arrays: Sequence[Any], owners: set[int], stream: int) -> None:
        # CuPy's pool reuses memory on the stream it was allocated on, and knows of no other.
        for owner in owners:
            self.wait(owner, stream)


def root_package(array: Any) -> str:
    """The top-level package that an array's class comes from; torch's subclasses count as torch."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return "torch"
    root = type(array).__module__.partition(".")[0]
    return "jax" if root == "jaxlib" else root


def framework_for(array: Any, device: _ffi.DeviceKey, name: str = "array") -> NumpyFramework:
    """The framework that makes the outputs of a call about `array`, called `name` in errors."""
    root = root_package(array)
    if root == "torch":
        return TorchFramework(device)
    if root == "cupy":
        return CupyFramework(device)
    if device.type == _ffi.CUDA:
        if root == "jax":
            raise NotSupportedError(f"{name}: JAX arrays are supported on the CPU only; use torch or CuPy")
        raise InvalidTypeError(
            f"{name}: cannot allocate CUDA memory for {type(array).__name__}; use torch or CuPy"
        )
    return JaxFramework() if root == "jax" else NumpyFramework()
