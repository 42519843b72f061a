"""The C structs of a call, kept from call to call: what makes a call from torch cheap.

A network calls an operator again and again with tensors of the same shapes. The structs that describe them,
and the sizes of the workspace and of the saved state, are made once for each such kind of call; later calls
set data pointers alone. Plans belong to one thread, as contexts do: backward may run on autograd's own.
"""

from __future__ import annotations

import ctypes as ct
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch

from .. import _ffi
from ..errors import InvalidTypeError, InvalidValueError
from ._options import to_struct

Tensors = Sequence[Optional[torch.Tensor]]
_KEPT = 256  # plans per thread
_ALIGNMENT = 64  # bytes, of workspaces and saved state
_DTYPES = {
    torch.float32: _ffi.FLOAT32,
    torch.float64: _ffi.FLOAT64,
    torch.float16: _ffi.FLOAT16,
    torch.bfloat16: _ffi.BFLOAT16,
    torch.uint8: _ffi.UINT8,
    torch.bool: _ffi.UINT8,
    torch.int32: _ffi.INT32,
    torch.int64: _ffi.INT64,
}


class Operator(NamedTuple):
    """An operator of the C library: the prefix of its functions, and its structs."""

    prefix: str  #: "softmax", of segprior_softmax_forward
    opts: type[ct.Structure]
    inputs: type[ct.Structure]
    #: of the tensors in `inputs`, the leading one first; members of arrays: "edges[0]"
    names: tuple[str, ...]
    passes: int  #: forward, backward, double backward: those it has


class Views:
    """C views of tensors, whose data pointers can be set anew."""

    def __init__(self, names: Sequence[str], tensors: Tensors) -> None:
        self._slots = [
            (i, name, describe(name, t)) for i, (name, t) in enumerate(zip(names, tensors)) if t is not None
        ]
        self.references = [ct.byref(view) for _, _, view in self._slots]

    def point_to(self, tensors: Tensors) -> None:
        """`tensors`: contiguous, and in all else like those they were made for."""
        for i, _, view in self._slots:
            view.data = tensors[i].data_ptr()  # type: ignore[union-attr]


class Struct(Views):
    """A C struct of pointers to such views."""

    def __init__(self, struct_type: type[ct.Structure], names: Sequence[str], tensors: Tensors) -> None:
        super().__init__(names, tensors)
        self.fields = struct_type(struct_size=ct.sizeof(struct_type))
        self.reference = ct.byref(self.fields)
        for _, name, view in self._slots:
            field, _, member = name.partition("[")
            if member:
                getattr(self.fields, field)[int(member[:-1])] = ct.pointer(view)
            else:
                setattr(self.fields, field, ct.pointer(view))


def describe(name: str, tensor: torch.Tensor) -> _ffi.Tensor:
    """The C view of a contiguous tensor, without its data pointer: shapes alone, so a fake tensor will do."""
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        names = ", ".join(str(known).removeprefix("torch.") for known in _DTYPES)
        raise InvalidTypeError(f"{name} has dtype {tensor.dtype}; it must be one of {names}")
    ndim = tensor.dim()
    shape = (ct.c_int64 * max(1, ndim))(*tensor.shape)
    return _ffi.Tensor(None, _ffi.Device(*device_key(name, tensor)), dtype, ndim, shape, None, 0)


def device_key(name: str, tensor: torch.Tensor) -> _ffi.DeviceKey:
    if tensor.device.type == "cpu":
        return _ffi.DeviceKey(_ffi.CPU, 0)
    if tensor.device.type == "cuda":
        return _ffi.DeviceKey(_ffi.CUDA, tensor.device.index or 0)
    raise InvalidValueError(f"{name} lives on {tensor.device}; it must be on the CPU or on a CUDA device")


class Plan:
    """What the calls of one kind share."""

    def __init__(self, operator: Operator, options: str, tensors: Tensors, threads: int) -> None:
        lead = tensors[0]
        assert lead is not None
        for name, tensor in zip(operator.names[1:], tensors[1:]):
            if tensor is not None and tensor.device != lead.device:
                raise InvalidValueError(
                    f"{name} lives on {tensor.device}; "
                    f"it must be on the device of {operator.names[0]}, {lead.device}"
                )
        self._lib = _ffi.library()
        self._prefix, self._threads, self._device = operator.prefix, threads, lead.device
        self._context = _ffi.context(device_key(operator.names[0], lead))
        self._opts = to_struct(operator.prefix, operator.opts, options)
        self._inputs = Struct(operator.inputs, operator.names, tensors)
        self._common = (self._context.handle, ct.byref(self._opts), self._inputs.reference)
        self._known: dict[Any, Any] = {}
        self._configure()
        self.sizes = self._sizes(operator.passes)

    def _sizes(self, passes: int) -> list[int]:
        """Bytes: the workspace of each pass, and the state saved for those after the first."""
        sizes = [ct.c_size_t() for _ in range(passes + (passes > 1))]
        references = [ct.byref(size) for size in sizes]
        workspace_size = getattr(self._lib, f"{self._prefix}_workspace_size")
        self._lib.check(workspace_size(*self._common, *references[:passes]))
        if passes > 1:
            self._lib.check(getattr(self._lib, f"{self._prefix}_saved_size")(*self._common, references[-1]))
        return [size.value for size in sizes]

    def _configure(self) -> None:
        stream = torch.cuda.current_stream(self._device).cuda_stream if self._device.type == "cuda" else 0
        self._context.configure(stream, self._threads)

    def struct(
        self, key: Any, struct_type: type[ct.Structure], names: Sequence[str], tensors: Tensors
    ) -> Struct:
        """A struct that points to these tensors.

        `key` tells those of one plan apart; where the tensors are the caller's it contains their `kind_of`.
        """
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Struct(struct_type, names, tensors)
        found.point_to(tensors)
        return found

    def views(self, names: Sequence[str], tensors: Tensors) -> list[Any]:
        """References to views of these tensors, which may be of any kind: the library checks them."""
        key = (names, kind_of(tensors))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Views(names, tensors)
        found.point_to(tensors)
        return found.references

    def run(
        self, function: str, tensors: Tensors, middle: Sequence[Any], workspace: int, *saved: torch.Tensor
    ) -> None:
        """Calls ``segprior_<prefix>_<function>``.

        Its arguments: context, options, inputs, `middle`, workspace, and `saved` if it takes that.
        """
        self._configure()
        self._inputs.point_to(tensors)
        scratch = torch.empty(workspace, dtype=torch.uint8, device=self._device)
        # torch aligns new memory as the library asks; a hook on saved tensors may give back other memory.
        memories = [scratch, *[m.clone() if m.data_ptr() % _ALIGNMENT else m for m in saved]]
        ends: list[Any] = []
        for memory in memories:
            if memory.dtype != torch.uint8 or memory.device != self._device:
                raise InvalidValueError(
                    f"saved is {memory.dtype} on {memory.device}; it must be as forward left it"
                )
            ends += [memory.data_ptr() or None, memory.numel()]
        call = getattr(self._lib, f"{self._prefix}_{function}")
        self._lib.check(call(*self._common, *middle, *ends))
        del scratch, memories  # torch hands them out again in the order of the stream


def kind_of(tensors: Tensors) -> tuple[Any, ...]:
    """What a C view of each tensor consists of, but for the data pointer."""
    return tuple([None if t is None else (t.shape, t.dtype, t.device) for t in tensors])


def contiguous(tensors: Tensors) -> list[Optional[torch.Tensor]]:
    return [t if t is None or t.is_contiguous() else t.contiguous() for t in tensors]


_thread = threading.local()


def plan(operator: Operator, options: str, tensors: Tensors) -> Plan:
    """This thread's plan for calls of this kind."""
    threads = torch.get_num_threads()
    key = (operator.prefix, options, threads, kind_of(tensors))
    try:
        plans: dict[Any, Plan] = _thread.plans
    except AttributeError:
        plans = _thread.plans = {}
    found = plans.get(key)
    if found is None:
        if len(plans) >= _KEPT:
            del plans[next(iter(plans))]
        found = plans[key] = Plan(operator, options, tensors, threads)
    return found


def fake_size(operator: Operator, options: str, tensors: Tensors, which: int) -> int:
    """`Plan.sizes[which]` for fake tensors; in a graph traced for any shape it is known at run time only."""
    if all(isinstance(extent, int) for tensor in tensors if tensor is not None for extent in tensor.shape):
        return plan(operator, options, tensors).sizes[which]
    size: Any = torch.library.get_ctx().new_dynamic_size()  # a torch.SymInt
    return size  # type: ignore[no-any-return]
