"""`csr_solve`: symmetric positive definite systems whose matrix is given entry by entry."""

from __future__ import annotations

import ctypes as ct
from typing import Any, NamedTuple

from . import _ffi
from ._arrays import ANY, INDEX, View, view
from ._call import integer, positive
from ._frameworks import framework_for
from .errors import InvalidTypeError, InvalidValueError
from .report import Systems

__all__ = ["CsrResult", "csr_solve"]

PRECONDITIONERS = {"none": 0, "ic0": 1}


class CsrResult(NamedTuple):
    """What `csr_solve` returns."""

    x: Any  #: of the shape, dtype, framework and device of `rhs`
    info: Systems  #: fields [R]; the residual is |rhs - A x| / |rhs|, computed anew from x


def csr_solve(
    row_offsets: Any,
    columns: Any,
    values: Any,
    rhs: Any,
    tol: float = 1e-6,
    max_iters: int | None = None,
    x0: Any = None,
    *,
    preconditioner: str = "ic0",
    threads: int | None = None,
    stream: int | None = None,
) -> CsrResult:
    """Solves ``A x = rhs`` by conjugate gradients with an incomplete Cholesky factorisation without fill-in.

    For matrices that `softcut` does not have: that of `softcut_csr` with further edges, say. Where `softcut`
    applies, it is faster, and differentiable; here gradients are one more call: with ``l = A^-1 grad_x``,
    ``grad rhs = l`` and ``grad a_ij = -l_i x_j``.

    Args:
        row_offsets: [rows + 1], int32; columns: [entries], int32; values: [entries], of the dtype of `rhs`.
            A in compressed sparse rows, as `scipy.sparse.csr_matrix` with sorted indices has it in indptr,
            indices, data. Symmetric (not checked), both triangles, every diagonal entry stored.
        rhs: [rows] or [R, rows], float32 or float64. NumPy, or any array with ``__dlpack__``.
        tol: > 0; a right-hand side ends when ``|rhs - A x| <= tol |rhs|``.
        max_iters: cap of the iterations, >= 1. None: 2000.
        x0: where the iteration starts, of the shape of `rhs`. None: 0.
        preconditioner: "ic0" or "none".
        threads: CPU threads, over right-hand sides; None: the OpenMP default.
        stream: a cudaStream_t as an integer to work on; None: the current stream of rhs's framework.

    Waits for the stream. On CUDA it needs the libraries cuSPARSE and cuBLAS.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is wrong, or A breaks a rule; the text names it.
        NotSupportedError: cuSPARSE or cuBLAS cannot be loaded, or has no incomplete factorisation.
        DeviceError, OutOfMemoryError, LibraryError.
    """
    lib = _ffi.library()
    opts = _ffi.CsrOpts()
    lib.check(lib.csr_opts_init(ct.byref(opts), ct.sizeof(opts)))
    if not isinstance(preconditioner, str) or preconditioner not in PRECONDITIONERS:
        raise InvalidValueError(f"preconditioner is {preconditioner!r}; it must be 'ic0' or 'none'")
    opts.preconditioner = PRECONDITIONERS[preconditioner]
    opts.tolerance = positive("tol", tol)
    opts.max_iterations = 0 if max_iters is None else integer("max_iters", max_iters, 1)
    stream = None if stream is None else integer("stream", stream, 0, 64)

    right = view(rhs, "rhs", stream)
    if len(right.shape) not in (1, 2):
        raise InvalidValueError(f"rhs has shape {right.shape}; it must be [rows] or [R, rows]")
    rows, shape = right.shape[-1], right.shape
    lead = right.reshaped((1, rows)) if len(shape) == 1 else right
    offsets = _like(right, "row_offsets", view(row_offsets, "row_offsets", stream, INDEX), (rows + 1,))
    indices = view(columns, "columns", stream, INDEX)
    _like(right, "columns", indices, indices.shape[:1])
    entries = _like(right, "values", view(values, "values", stream), indices.shape, right.dtype)
    start = None
    if x0 is not None:
        start = _like(right, "x0", view(x0, "x0", stream), shape, right.dtype).reshaped(lead.shape)

    framework = framework_for(rhs, right.device, "rhs")
    work = framework.current_stream() if stream is None else stream
    context = _ffi.context(right.device)
    context.configure(work, 0 if threads is None else integer("threads", threads, 0))
    raw = (_ffi.Info * lead.shape[0])()
    with framework.on_stream(work):
        x = framework.empty(shape, right.dtype)
        result = view(x, "x", allowed=ANY).reshaped(lead.shape)
        info, address = framework.buffer(ct.sizeof(raw))
        lib.check(
            lib.csr_solve(
                *(context.handle, ct.byref(opts), rows, indices.shape[0], offsets.address, indices.address),
                *(ct.byref(entries.tensor), ct.byref(lead.tensor), None if start is None else ct.byref(start.tensor)),
                *(ct.byref(result.tensor), address),
            )
        )
        if 0 not in lead.shape:
            lib.check(lib.info_read_sync(context.handle, address, lead.shape[0], raw))
        del info
    return CsrResult(framework.finish(x), Systems(list(raw), (lead.shape[0],)))


def _like(lead: View, name: str, found: View, shape: tuple[int, ...], dtype: int | None = None) -> View:
    """`found`, if it has this shape (one axis, or that of rhs), lives where `lead` does, and is of `dtype`."""
    if found.shape != shape or not shape:
        text = list(shape) or "[entries]"
        raise InvalidValueError(f"{name} has shape {list(found.shape)}; it must be {text}")
    if found.device != lead.device:
        raise InvalidValueError(f"{name} is on {found.device}; it must be on rhs's device, {lead.device}")
    if dtype is not None and found.dtype != dtype:
        names = _ffi.DTYPE_NAMES
        raise InvalidTypeError(
            f"{name} has dtype {names[found.dtype]}; it must be that of rhs, {names[dtype]}"
        )
    return found
