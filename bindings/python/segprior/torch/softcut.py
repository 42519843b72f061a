"""SoftCut for torch tensors: `softcut`, `softcut_with_report`. Twice differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from .._call import choice, flag, integer, positive
from ..errors import InvalidTypeError, InvalidValueError
from ..softcut import NORMS, PATHS, SOLVERS
from . import _softcut_op
from ._define import apply
from ._options import remembered, to_text
from ._tensors import HALF, require_floats, require_images
from .report import Report, read_report


class SoftcutOutput(NamedTuple):
    """What `softcut_with_report` returns; gradients flow through `x` alone.

    Attributes:
        x: the solution [B, K, *S].
        report: how the solves ended, [B, K]; the residual is that of x, computed anew, in the norm and scale
            of the stopping rule.
    """

    x: Tensor
    report: Report


def softcut(
    scores: Tensor,
    edges: Sequence[Tensor],
    diagonals: Optional[Sequence[Tensor]] = None,
    conductance: Optional[Tensor] = None,
    solver: str = "auto",
    tol: float = 1e-6,
    max_iters: Optional[int] = None,
    x0: Optional[Tensor] = None,
    *,
    norm: str = "l2",
    absolute: bool = False,
    batch: bool = False,
    backward_tol: float = 1e-6,
    backward_max_iters: Optional[int] = None,
    path: str = "auto",
) -> Tensor:
    """Solves ``d_a x_a + sum_b w_ab (x_a - x_b) = p_a`` on the grid of voxels ([SC] eq. 22), as a
    differentiable function of torch tensors.

    Arguments and mathematics are those of `segprior.softcut`; so are the values, bit for bit.

    >>> import torch, segprior.torch
    >>> scores = torch.randn(2, 3, 32, 32, requires_grad=True)
    >>> edges = (torch.full((2, 1, 31, 32), 5.0), torch.full((2, 1, 32, 31), 5.0, requires_grad=True))
    >>> x = segprior.torch.softcut(scores, edges, tol=1e-5)
    >>> x.square().mean().backward()
    >>> scores.grad.shape, edges[1].grad.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 1, 32, 31]))

    Args:
        scores: p [B, K, *S], 1 to 3 spatial axes, on the CPU or on CUDA; float32 or float64. Of float16 or
            bfloat16: solved in float32, and x rounded to the scores' dtype. Under autocast every 16-bit
            argument is converted to float32, and x is float32.
        edges: w >= 0, a tuple of one tensor per spatial axis m: [B, K, *S] or [B, 1, *S] with ``S[m] - 1``
            entries on axis m. Of the scores' dtype, or with scores of up to 32 bits all float16 or bfloat16.
        diagonals: 2-D only: two tensors [B, K, H - 1, W - 1] or [B, 1, H - 1, W - 1] of the edges' dtype.
        conductance: d > 0, [B, K, *S] or [B, 1, *S] of the scores' dtype. None: 1.
        x0: where the iteration starts, [B, K, *S] of the scores' dtype; a constant. None: p / d.
        solver, tol, max_iters, norm, absolute, batch, path: as in `segprior.softcut`.
        backward_tol, backward_max_iters: stopping of the solves of backward and of double backward. One
            iteration makes backward cheap and its gradients rough. How these solves end is not reported;
            `segprior.softcut` has a report of them.

    Returns:
        x [B, K, *S], contiguous. Gradients of scores, edges, diagonals and conductance are those of the
        solution, not of the iteration, and have gradients themselves; third derivatives raise
        NotSupportedError. A system with a weight or conductance outside its domain, or with scores that are
        not finite, has x = NaN (`softcut_with_report` tells why) and NaN gradients; the others are not
        touched by it.

    Tensors may have any layout in memory; those that are not contiguous are copied. Works under torch.compile
    (one graph), torch.utils.checkpoint, torch.func's grad and vmap (one after another), and in CUDA graphs;
    uses torch's memory, its current stream, and `torch.get_num_threads()` threads.

    Raises:
        InvalidTypeError, InvalidValueError, NotSupportedError, DeviceError: as `segprior.softcut` does.

    References:
        [SC] Bonfiglio, "SoftCut", Politecnico di Milano, 2022.
    """
    options = options_of(
        solver, tol, max_iters, norm, absolute, batch, backward_tol, backward_max_iters, path
    )
    return _solve(scores, edges, diagonals, conductance, x0, options)[0]


def softcut_with_report(
    scores: Tensor,
    edges: Sequence[Tensor],
    diagonals: Optional[Sequence[Tensor]] = None,
    conductance: Optional[Tensor] = None,
    solver: str = "auto",
    tol: float = 1e-6,
    max_iters: Optional[int] = None,
    x0: Optional[Tensor] = None,
    *,
    norm: str = "l2",
    absolute: bool = False,
    batch: bool = False,
    backward_tol: float = 1e-6,
    backward_max_iters: Optional[int] = None,
    path: str = "auto",
) -> SoftcutOutput:
    """`softcut`, and the report of its solves."""
    options = options_of(
        solver, tol, max_iters, norm, absolute, batch, backward_tol, backward_max_iters, path
    )
    x, raw = _solve(scores, edges, diagonals, conductance, x0, options)
    return SoftcutOutput(x, read_report(raw))


@remembered
def options_of(
    solver: str,
    tol: float,
    max_iters: Optional[int],
    norm: str,
    absolute: bool,
    batch: bool,
    backward_tol: float,
    backward_max_iters: Optional[int],
    path: str,
) -> str:
    """The operator's options, checked, as text."""

    def cap(name: str, value: Optional[int]) -> Optional[int]:
        return None if value is None else integer(name, value, 1)

    return to_text(
        solver=choice("solver", solver, SOLVERS),
        norm=choice("norm", norm, NORMS),
        path=choice("path", path, PATHS),
        tolerance=positive("tol", tol),
        backward_tolerance=positive("backward_tol", backward_tol),
        max_iterations=cap("max_iters", max_iters),
        backward_max_iterations=cap("backward_max_iters", backward_max_iters),
        absolute=flag("absolute", absolute),
        batch=flag("batch", batch),
    )


def _solve(
    scores: Tensor,
    edges: Sequence[Tensor],
    diagonals: Optional[Sequence[Tensor]],
    conductance: Optional[Tensor],
    x0: Optional[Tensor],
    options: str,
) -> tuple[Tensor, Tensor]:
    """x and the raw report."""
    require_images("scores", require_floats("scores", scores), "B, K")
    axes = scores.dim() - 2
    family: list[Optional[Tensor]] = [*_family("edges", edges, axes, "one tensor per spatial axis")]
    family += [None] * (3 - axes)
    family += (None, None) if diagonals is None else _family("diagonals", diagonals, 2, "one per direction")
    for name, value in (("conductance", conductance), ("x0", x0)):
        if value is not None:
            require_floats(name, value)
    start = None if x0 is None else x0.detach()
    fields: list[Optional[Tensor]] = [scores, conductance, start]
    dtype = scores.dtype
    if any([t is not None and t.dtype in HALF for t in (*fields, *family)]):
        autocast = torch.is_autocast_enabled(scores.device.type)
        if autocast or dtype in HALF:
            fields = _widened(fields)
        if autocast:
            family = _widened(family)
            dtype = torch.float32 if dtype in HALF else dtype
    p, d, start = fields
    x, raw, _ = apply(_softcut_op.softcut, p, *family, d, start, options)
    return x.to(dtype), raw


def _widened(tensors: Sequence[Optional[Tensor]]) -> list[Optional[Tensor]]:
    return [t.float() if t is not None and t.dtype in HALF else t for t in tensors]


def _family(name: str, value: Any, count: int, rule: str) -> Sequence[Tensor]:
    if not isinstance(value, (tuple, list)):
        raise InvalidTypeError(f"{name} is {type(value).__name__}; it must be a tuple, {rule}")
    if len(value) != count:
        raise InvalidValueError(f"{name} has {len(value)} members; it must have {count}, {rule}")
    for i, member in enumerate(value):
        require_floats(f"{name}[{i}]", member)
    return value
