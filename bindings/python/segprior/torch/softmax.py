"""The entropic softmax with composable priors, for torch tensors: `softmax`, `softmax_with_duals`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

from torch import Tensor

from ..priors import TV, Star, ThresholdDynamics, Volume
from . import _softmax_op
from ._define import apply
from ._softmax_arguments import operator_arguments
from ._softmax_op import split_duals
from .report import Report, read_report

__all__ = ["SoftmaxOutput", "softmax", "softmax_with_duals"]


class SoftmaxOutput(NamedTuple):
    """What `softmax_with_duals` returns; gradients flow through `u` alone.

    Attributes:
        u: class probabilities [B, I, *S].
        tv_dual: q [B, I, nd, *S], None without the TV prior. volume_dual: f [B, I], None without volumes.
        star_dual: g [B, M, *S], None without star classes.
        report: how each image's iterations ended, [B].
    """

    u: Tensor
    tv_dual: Optional[Tensor]
    volume_dual: Optional[Tensor]
    star_dual: Optional[Tensor]
    report: Report


WarmStart = Union[SoftmaxOutput, tuple[Optional[Tensor], ...]]


def softmax(
    features: Tensor,
    eps: Any = 1.0,
    iters: int = 30,
    init_eps: Optional[float] = None,
    tol: Optional[float] = None,
    tv: Optional[TV] = None,
    accelerate: Optional[bool] = None,
    volume: Optional[Volume] = None,
    spacing: Optional[Sequence[float]] = None,
    warm_start: Optional[WarmStart] = None,
    *,
    td: Optional[ThresholdDynamics] = None,
    star: Optional[Sequence[Star]] = None,
    mask: Optional[Tensor] = None,
    checkpoint: Optional[int] = None,
    compact_saved: bool = False,
    check_interval: int = 10,
    path: str = "auto",
    mode: str = "unrolled",
    implicit_iters: Optional[int] = None,
    implicit_tol: Optional[float] = None,
) -> Tensor:
    """Entropic softmax with any mix of priors, as a differentiable function of torch tensors.

    Arguments and mathematics are those of `segprior.softmax`; so are the values, bit for bit.

    >>> import torch, segprior, segprior.torch
    >>> features = torch.randn(2, 3, 32, 32, requires_grad=True)
    >>> lam = torch.tensor(0.5, requires_grad=True)
    >>> u = segprior.torch.softmax(features, eps=0.5, iters=20, tv=segprior.TV(lam))
    >>> u.square().mean().backward()
    >>> features.grad.shape, lam.grad.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([]))

    Args:
        features: o [B, I, *S], float32, float64, float16 or bfloat16, on the CPU or on CUDA; any layout in
            memory (one that is not contiguous is copied). Under autocast 16-bit features are computed, and u
            returned, in float32, as torch.softmax is.
        eps, and in the priors lam, tau, edge, sigma, kernel, v, lower, upper, center: numbers, or tensors on
            the features' device, which may require grad: of one element, in any shape, for scalars, else of
            the shapes that `segprior.softmax` takes. Tensors are converted to float64 if the features have
            that, else to float32. Sequences of numbers become tensors; on CUDA give tensors where copies from
            the host cost too much, or in a CUDA graph.
        warm_start: a `SoftmaxOutput`, or (tv_dual, volume_dual) or (tv_dual, volume_dual, star_dual): start
            from these duals. Constants: no gradient flows into them.
        mask: bool or uint8 [*S], [1, *S] or [B, *S]; 0: masked.
        checkpoint: interval at which iterates are kept for backward: 1 all, None about sqrt(iters), in mode
            "implicit" the last alone. Nothing is kept where no gradient is needed.
        mode: what backward differentiates: "unrolled" all iterations, "implicit" the limit (give a `tol`),
            "last" the last softmax alone, duals held constant. Parameters have gradients in "unrolled"; in
            "implicit" all but the steps tau; in "last" none, and one that requires grad is an error.
        implicit_iters, implicit_tol: cap (1000) and tolerance (1e-6) of mode "implicit"'s adjoint solve.
        init_eps, tol, accelerate, spacing, compact_saved, check_interval, path: as in `segprior.softmax`.

    Returns:
        u [B, I, *S] of the features' dtype, contiguous. There are no second derivatives.

    Works under torch.compile (one graph), torch.utils.checkpoint, vmap (image after image), CUDA graphs;
    uses torch's memory, its current stream, and `torch.get_num_threads()` threads.

    Raises:
        InvalidTypeError, InvalidValueError, NotSupportedError, DeviceError: as `segprior.softmax` does.

    References:
        [VPTV] arXiv 1909.09931, Algorithm 1. [STD] arXiv 2002.03989, Algorithms 1 to 3.
    """
    tensors, options, keep = operator_arguments(
        *(features, eps, iters, init_eps, tol, tv, accelerate, volume, spacing, warm_start, td, star, mask),
        *(checkpoint, compact_saved, check_interval, path, mode, implicit_iters, implicit_tol),
    )
    u: Tensor = apply(_softmax_op.softmax, *tensors, options, keep, False, False)[0]
    return u


def softmax_with_duals(
    features: Tensor,
    eps: Any = 1.0,
    iters: int = 30,
    init_eps: Optional[float] = None,
    tol: Optional[float] = None,
    tv: Optional[TV] = None,
    accelerate: Optional[bool] = None,
    volume: Optional[Volume] = None,
    spacing: Optional[Sequence[float]] = None,
    warm_start: Optional[WarmStart] = None,
    *,
    td: Optional[ThresholdDynamics] = None,
    star: Optional[Sequence[Star]] = None,
    mask: Optional[Tensor] = None,
    checkpoint: Optional[int] = None,
    compact_saved: bool = False,
    check_interval: int = 10,
    path: str = "auto",
    mode: str = "unrolled",
    implicit_iters: Optional[int] = None,
    implicit_tol: Optional[float] = None,
) -> SoftmaxOutput:
    """`softmax`, and its duals and report: a `SoftmaxOutput`, which a later call takes as `warm_start`."""
    tensors, options, keep = operator_arguments(
        *(features, eps, iters, init_eps, tol, tv, accelerate, volume, spacing, warm_start, td, star, mask),
        *(checkpoint, compact_saved, check_interval, path, mode, implicit_iters, implicit_tol),
    )
    u, memory, raw, _ = apply(_softmax_op.softmax, *tensors, options, keep, False, True)
    duals = split_duals(memory, u, tv is not None, volume is not None, len(star or ()))
    return SoftmaxOutput(
        u, duals.get("tv_dual"), duals.get("volume_dual"), duals.get("star_dual"), read_report(raw)
    )
