"""SoftCut: `softcut` solves a sparse linear system on the voxel grid, `softcut_with_report` says how it
went."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import _ffi
from .._softcut_call import FAMILIES, SoftcutCall
from ..softcut import set_options
from ._arguments import dtype_name, is_array, saved_bytes, stand_in, varying_alike
from ._softcut import Plan, solve
from .report import Report, read


class SoftcutOutput(NamedTuple):
    """What `softcut_with_report` returns."""

    x: Any  #: [B, K, *S], the scores' dtype
    report: Report  #: status, iterations, residual [B, K]; constants


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
) -> jax.Array:
    """Solves ``(D + L(w)) x = p`` as `segprior.softcut` does: x [B, K, *S].

    Twice differentiable in scores, edges, diagonals and conductance, by reverse mode (``grad`` of ``grad``;
    not ``jax.hessian``, which is forward over reverse: take ``jacrev(jacrev(f))``). The gradients are those
    of the solution, not of the iteration. Works under `jit`, `grad`, `vmap`, `checkpoint`, in loops and
    conditions.

    Args:
        scores: p [B, K, *S]; float32, or float64 (JAX's 64-bit mode).
        edges, diagonals, conductance: tuples of arrays and an array, as `segprior.softcut`. Not converted.
        x0: where the iteration starts, [B, K, *S]; a constant, no gradient goes through it.
        solver, tol, max_iters, norm, absolute, batch, backward_tol, backward_max_iters, path: as
            `segprior.softcut`; numbers, constants of the program. With float32, edges far above 1 need a
            larger `tol`: see the report.

    `vmap` is one call with more images whatever is mapped, but a loop of calls with ``batch=True``. Sharding:
    as `segprior.jax.softmax`.

    Raises: as `segprior.jax.softmax`. NotSupportedError: a third derivative.

    References: [SC] Bonfiglio, "SoftCut", Politecnico di Milano, 2022, eq. 22.
    """
    return _softcut(**locals()).x


def softcut_with_report(
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
) -> SoftcutOutput:
    """`softcut` with the report of each system."""
    return _softcut(**locals())


def _softcut(
    scores: Any,
    edges: Any,
    diagonals: Any,
    conductance: Any,
    x0: Any,
    **options: Any,
) -> SoftcutOutput:
    scores = jnp.asarray(scores) if is_array(scores) else scores
    call = SoftcutCall(stand_in(scores) if is_array(scores) else scores, None, None)
    set_options(call, **options)
    arrays = {"scores": scores}
    given = {"edges": () if edges is None else edges, "diagonals": diagonals, "conductance": conductance}
    given["x0"] = x0 if x0 is None else jax.lax.stop_gradient(x0)
    for name, value in given.items():
        _add(call, arrays, name, value)
    lib = _ffi.library()
    views = [view for family in call.given.values() for view in family if view is not None]
    size = saved_bytes(call, views, lib.softcut_saved_size, call.opts, call.inputs)
    shape = tuple(scores.shape)
    plan = Plan(bytes(call.opts), (shape, dtype_name(scores)), size, not call.opts.batch)
    x, info = solve(plan, varying_alike(arrays))
    return SoftcutOutput(x, read(info, shape[:2]))


def _add(call: SoftcutCall, arrays: dict[str, Any], name: str, value: Any) -> None:
    """Checks an argument and keeps its arrays by name, those of a family as "edges[0]"."""
    if name not in FAMILIES or not isinstance(value, (tuple, list)):
        if is_array(value):
            arrays[name] = jnp.asarray(value)
            value = stand_in(arrays[name])
        call.add(name, value)
        return
    found = [jnp.asarray(one) if is_array(one) else one for one in value]
    call.add(name, tuple(stand_in(one) if is_array(one) else one for one in found))
    arrays.update({f"{name}[{m}]": one for m, one in enumerate(found)})
