"""SoftCut: `softcut` solves a sparse linear system on the voxel grid, `softcut_csr` exports its matrix."""

from __future__ import annotations

import ctypes as ct
from typing import Any

from . import _ffi
from ._call import choice, flag, integer, positive
from ._softcut_call import SoftcutCall
from .softcut_result import SoftcutGradients, SoftcutResult, SoftcutSecondGradients

__all__ = ["SoftcutGradients", "SoftcutResult", "SoftcutSecondGradients", "softcut", "softcut_csr"]

SOLVERS = {
    "auto": _ffi.SOFTCUT_AUTO,
    "cg": _ffi.SOFTCUT_CG,
    "jacobi": _ffi.SOFTCUT_JACOBI,
    "multigrid": _ffi.SOFTCUT_MULTIGRID,
    "chebyshev": _ffi.SOFTCUT_CHEBYSHEV,
    "direct": _ffi.SOFTCUT_DIRECT,
}
NORMS = {"l2": _ffi.NORM_L2, "l1": _ffi.NORM_L1}
PATHS = {
    "auto": _ffi.PATH_AUTO,
    "streaming": _ffi.PATH_STREAMING,
    "on_chip": _ffi.PATH_ON_CHIP,
    "cluster": _ffi.PATH_CLUSTER,
    "persistent": _ffi.PATH_PERSISTENT,
}


def softcut(
    scores: Any,
    edges: Any,
    diagonals: Any = None,
    conductance: Any = None,
    solver: str = "auto",
    tol: float = 1e-6,
    max_iters: int | None = None,
    x0: Any = None,
    *,
    norm: str = "l2",
    absolute: bool = False,
    batch: bool = False,
    backward_tol: float = 1e-6,
    backward_max_iters: int | None = None,
    path: str = "auto",
    threads: int | None = None,
    stream: int | None = None,
) -> SoftcutResult:
    """Solves ``(D + L(w)) x = p`` on the grid of voxels ([SC] eq. 22): for every voxel a,

        d_a x_a + sum_b w_ab (x_a - x_b) = p_a

    with the sum over a's neighbours b. With d = 1: ``sum x = sum p`` and ``min p <= x <= max p``; w = 0 gives
    x = p, large weights within a region give the region's mean.

    Args:
        scores: p [B, K, *S], 1 to 3 spatial axes, C-contiguous; float32 or float64. NumPy, or any array with
            ``__dlpack__`` (torch, CuPy, JAX on the CPU); read in place, never copied. B K systems.
        edges: w >= 0, a tuple of one array per spatial axis m: [B, K, *S] with ``S[m] - 1`` entries on axis
            m, entry i being the edge between voxels i and i + 1. Of the scores' dtype; with float32 scores
            all of them may be float16 or bfloat16.
        diagonals: 2-D only, for an 8-neighbourhood: a tuple of two arrays [B, K, H - 1, W - 1] of the edges'
            dtype; ``diagonals[0][y, x]`` couples (y, x) with (y + 1, x + 1), ``diagonals[1][y, x]`` couples
            (y, x + 1) with (y + 1, x). None: 4 neighbours.
        conductance: d > 0, [B, K, *S] of the scores' dtype. None: 1.
            Edges, diagonals and conductance may all have 1 in place of K: the classes of an image then share
            a matrix, which is read once for all of them; its gradients are sums over the classes.
        solver: "auto"; "cg": conjugate gradients; "jacobi", "multigrid": the same, preconditioned by the
            diagonal or a multigrid cycle; "chebyshev": Chebyshev iteration, without dot products; "direct":
            a sparse Cholesky factorisation in float64 (CPU, libraries built with Eigen).
        tol: > 0; a system stops when ``|r| <= tol |p|``, r = p - A x its residual.
        max_iters: cap of the iterations, >= 1. None: 500 with "multigrid", else 2000.
        x0: where the iteration starts, [B, K, *S] of the scores' dtype; a constant in `backward`. None: p / d.
        norm: "l2" or "l1", of the stopping rule.
        absolute: True: stop when the mean over the voxels of |r| ("l1"), or the root of the mean of r²
            ("l2"), is <= tol.
        batch: True: all systems count as one long vector in the rule and stop together. [SC] section 3 is
            ``norm="l1", absolute=True, batch=True``.
        backward_tol, backward_max_iters: the same of the backward solves, which stop system by system at
            ``|r| <= backward_tol |incoming gradient|`` (L2). None: `max_iters`.
        path: which kernels, on CUDA: "auto", "streaming", "on_chip", "cluster" or "persistent".
        threads: CPU threads; None: the OpenMP default. The result does not depend on it.
        stream: a cudaStream_t as an integer to work on, which lives as long as the result; None: the current
            stream of the scores' framework. It waits for that stream's work on the arguments; to make others
            wait for the results is the caller's part.

    Returns:
        `SoftcutResult`: x, info, and `SoftcutResult.backward`. Arrays: the scores' framework and device.
        A system with a weight or conductance outside its domain, or with scores that are not finite, has
        x = NaN and says so in `info`; the others are not touched by it.

    Raises:
        InvalidTypeError (a TypeError): not an array, or not of the dtypes above.
        InvalidValueError (a ValueError): a value, shape, stride or device; the text names the argument.
        NotSupportedError: `solver` or `path` cannot serve this problem or build.
        DeviceError, OutOfMemoryError, LibraryError.

    References:
        [SC] Bonfiglio, "SoftCut", Politecnico di Milano, 2022.
    """
    lib = _ffi.library()
    call = SoftcutCall(scores, stream, threads)
    set_options(
        *(call, solver, tol, max_iters, norm, absolute, batch, backward_tol, backward_max_iters, path),
    )
    _add_matrix(call, edges, diagonals, conductance)
    call.add("x0", x0)
    return _forward(lib, call)


def set_options(
    call: SoftcutCall,
    solver: Any,
    tol: Any,
    max_iters: Any,
    norm: Any,
    absolute: Any,
    batch: Any,
    backward_tol: Any,
    backward_max_iters: Any,
    path: Any,
) -> None:
    """Checks the options of `softcut` and sets those of its call."""
    opts = call.opts
    opts.solver = choice("solver", solver, SOLVERS)
    opts.norm = choice("norm", norm, NORMS)
    opts.path = choice("path", path, PATHS)
    opts.tolerance = positive("tol", tol)
    opts.backward_tolerance = positive("backward_tol", backward_tol)
    opts.max_iterations = 0 if max_iters is None else integer("max_iters", max_iters, 1)
    if backward_max_iters is not None:
        opts.backward_max_iterations = integer("backward_max_iters", backward_max_iters, 1)
    opts.absolute = flag("absolute", absolute)
    opts.batch = flag("batch", batch)


def _add_matrix(call: SoftcutCall, edges: Any, diagonals: Any, conductance: Any) -> None:
    call.add("edges", () if edges is None else edges)
    call.add("diagonals", diagonals)
    call.add("conductance", conductance)


def _forward(lib: _ffi.Library, call: SoftcutCall) -> SoftcutResult:
    context, size, saved_size = call.context(), ct.c_size_t(), ct.c_size_t()
    common = (context.handle, ct.byref(call.opts), ct.byref(call.inputs))
    lib.check(lib.softcut_workspace_size(*common, ct.byref(size), None, None))
    lib.check(lib.softcut_saved_size(*common, ct.byref(saved_size)))
    outputs = _ffi.SoftcutOutputs(struct_size=ct.sizeof(_ffi.SoftcutOutputs))
    with call.framework.on_stream(call.stream):
        made = call.allocate(outputs, ["x"])
        info = call.info_buffer()
        outputs.info = info[1]
        workspace, address = call.framework.buffer(size.value)
        saved = call.framework.buffer(saved_size.value) if saved_size.value else (None, 0)
        lib.check(
            lib.softcut_forward(
                *common, ct.byref(outputs), address, size.value, saved[1] or None, saved_size.value
            )
        )
        del workspace
    call.hold(call.arrays, call.stream)
    return SoftcutResult(call, made, (*saved, saved_size.value), info)


def softcut_csr(
    scores: Any, edges: Any, diagonals: Any = None, conductance: Any = None, *, stream: int | None = None
) -> tuple[Any, Any, Any]:
    """The matrices of `softcut` in compressed sparse row form, both triangles, columns ascending in each row.

    Args:
        scores, edges, diagonals, conductance, stream: as for `softcut`; no 16-bit edges. The scores only say
            shape, dtype and device.

    Returns:
        row_offsets [J + 1] and columns [entries], int32, shared by all matrices (J voxels of an image,
        numbered in C order), and values [M, entries] of the scores' dtype: M = B K matrices, or B where the
        classes share them. ``scipy.sparse.csr_matrix((values[m], columns, row_offsets))`` is matrix m.

    Raises: as `softcut`.
    """
    lib = _ffi.library()
    call = SoftcutCall(scores, stream, None)
    _add_matrix(call, edges, diagonals, conductance)
    context, entries = call.context(), ct.c_int64()
    common = (context.handle, ct.byref(call.inputs))
    lib.check(lib.softcut_csr_size(*common, ct.byref(entries)))
    first = call.given["edges"][0]
    assert first is not None  # `read` without gaps
    matrices = call.batch * (1 if first.shape[1] == 1 else call.classes)
    voxels = 1
    for extent in call.spatial:
        voxels *= extent
    with call.framework.on_stream(call.stream):
        rows, row_view = call.made("row_offsets", (voxels + 1,), _ffi.INT32)
        columns, column_view = call.made("columns", (entries.value,), _ffi.INT32)
        values, value_view = call.made("values", (matrices, entries.value), call.lead.dtype)
        lib.check(
            lib.softcut_csr(*common, row_view.address, column_view.address, ct.byref(value_view.tensor))
        )
    call.hold(call.arrays, call.stream)
    finish = call.framework.finish
    return finish(rows), finish(columns), finish(values)
