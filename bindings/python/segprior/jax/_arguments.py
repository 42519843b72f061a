"""Arguments of JAX: arrays whose values nobody can look at yet.

Shapes and dtypes are checked by the very code that checks NumPy arrays (_softmax_call.py and its like), which
is shown an uninitialised NumPy array in place of each JAX array. What it makes of their shapes is then done
to the JAX arrays.
"""

from __future__ import annotations

import ctypes as ct
import math
from collections.abc import Iterable
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from .. import _ffi
from .._arrays import View
from .._call import Work
from ..errors import InvalidTypeError
from ._calls import as_varying, varying


def is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray))


def stand_in(array: Any) -> np.ndarray:
    """A NumPy array of this shape and dtype; its memory is not touched."""
    return np.empty(array.shape, array.dtype)


def dtype_name(array: Any) -> str:
    return str(np.dtype(array.dtype))


class Given:
    """The JAX arrays of a call by the C library's names, and stand-ins for them."""

    def __init__(self, lead: Any) -> None:
        #: The dtype of everything real but the leading array.
        self.real = jnp.float64 if lead.dtype == jnp.float64 else jnp.float32
        self.arrays: dict[str, Any] = {}

    def scalar(self, name: str, value: Any) -> Any:
        """An array becomes one of the real dtype; a number stays what it is, and has no gradient."""
        return self.keep(name, self._as_real(name, jnp.asarray(value))) if is_array(value) else value

    def numbers(self, name: str, value: Any) -> Any:
        """An array or nested sequences of numbers or arrays, as an array of the real dtype."""
        if value is None:
            return None
        try:
            array = jnp.asarray(value)
        except (TypeError, ValueError):
            return value  # the check of its stand-in says what is wrong
        return self.keep(name, self._as_real(name, array))

    def _as_real(self, name: str, array: Any) -> Any:
        """Not from complex numbers, whose imaginary parts would be lost, nor from bool."""
        if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
            raise InvalidTypeError(f"{name} has dtype {array.dtype}; it must be real numbers")
        return array.astype(self.real)

    def array(self, name: str, value: Any) -> Any:
        """An array that keeps its dtype."""
        return self.keep(name, jnp.asarray(value)) if is_array(value) else value

    def keep(self, name: str, array: Any) -> np.ndarray:
        self.arrays[name] = array
        return stand_in(array)


def fitted(array: Any, shape: tuple[int, ...]) -> Any:
    """The array as the C library has it: with axes of one element more, or repeated for each image."""
    if array.size == math.prod(shape):
        return array.reshape(shape)
    return jnp.broadcast_to(array, shape)


def saved_bytes(call: Work, views: Iterable[View], query: Callable[..., int], opts: Any, inputs: Any) -> int:
    """Bytes of state that a forward call leaves, the most of any kind of device that there is: which one it
    will be is not known yet. The query also checks all shapes and dtypes."""
    lib, views = _ffi.library(), list(views)
    devices = [_ffi.DeviceKey(_ffi.CPU, 0)]
    # Of JAX's own GPUs: a context on another would take memory there.
    gpus = [device for device in jax.local_devices() if device.platform == "gpu"]
    if lib.has_cuda() and gpus:
        devices.append(_ffi.DeviceKey(_ffi.CUDA, gpus[0].local_hardware_id or 0))
    most = 0
    for device in devices:
        for view in views:
            view.tensor.device = _ffi.Device(*device)
        size = ct.c_size_t()
        context = _ffi.context(device)
        lib.check(query(context.handle, ct.byref(opts), ct.byref(inputs), ct.byref(size)))
        most = max(most, size.value)
    return most


def varying_alike(arrays: dict[str, Any]) -> dict[str, Any]:
    """Inside `shard_map`: all arrays as different on the devices as any of them is. Without it a gradient,
    which is different too, could not belong to an argument that is the same everywhere; so it is summed over
    the devices."""
    axes = varying(arrays.values())
    return {name: as_varying(array, axes) for name, array in arrays.items()}


def perturbed(primals: dict[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names whose arrays are being differentiated; `primals` as custom_vjp's symbolic zeros have
    them."""
    return tuple(name for name in names if name in primals and primals[name].perturbed)


def values(primals: dict[str, Any]) -> dict[str, Any]:
    return {name: primal.value for name, primal in primals.items()}


def note(wanted: Iterable[str], arrays: dict[str, Any]) -> Any:
    """Some of the names of `arrays` as the shape of an empty array, which travels with the residuals.

    Not in their tree: JAX keeps one of a function for all the ways in which it is differentiated, mixed up by
    a `jit` around it. Shapes it keeps for each.
    """
    chosen = set(wanted)
    return jnp.zeros(
        (0, sum(1 << bit for bit, name in enumerate(sorted(arrays)) if name in chosen)), jnp.int8
    )


def noted(array: Any, arrays: dict[str, Any]) -> tuple[str, ...]:
    """The names that `note` was given, sorted."""
    return tuple(name for bit, name in enumerate(sorted(arrays)) if array.shape[1] >> bit & 1)


def cotangent(incoming: Any, like: Any) -> Any:
    """An incoming gradient as an array, zero where JAX knows that it is."""
    if isinstance(incoming, jax.custom_derivatives.SymbolicZero):
        return jnp.zeros(like[0], like[1])
    return incoming.astype(like[1])


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(static, *arrays)` in a program of its own where there is none around it: without, each call
    would be traced anew, which takes longer than small problems."""
    return jax.jit(function, static_argnums=0)


def underivable(function: Callable[..., Any], refuse: Callable[[], Exception]) -> Callable[..., Any]:
    """`function(static, *arrays)` with `refuse()` raised where it would be differentiated."""
    guarded = jax.custom_vjp(function, nondiff_argnums=(0,))

    def forward(*_: Any) -> Any:
        raise refuse()

    def backward(*_: Any) -> Any:
        raise refuse()

    guarded.defvjp(forward, backward)
    return guarded
