"""PyTorch, eager: the VPTV-softmax, or TV alone, as a good user of the framework writes it.

Vectorised over everything but the iterations; everything is divided by eps beforehand, which saves a pass over
the features; without gradients all updates happen in place and no buffer is allocated inside the loop.
"""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench.problem import Problem

NAME = "torch eager"


def unavailable(device: str) -> str | None:
    try:
        import torch
    except Exception as error:
        return f"torch cannot be imported ({error})"
    if device == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return None


def arrays(problem: Problem, device: str) -> list[Any]:
    """Features [B, I, *S], volumes [B, I, 1...] and grad_u as tensors on the device."""
    import torch

    volume = problem.volume.reshape(*problem.shape[:2], *[1] * problem.axes)
    return [torch.from_numpy(a).to(device) for a in (problem.features, volume, problem.grad_u)]


def forward_inplace(features: Any, volume: Any, problem: Problem) -> Any:
    import torch

    o = features / problem.eps
    tau, lam = problem.tau / problem.eps, problem.lam / problem.eps  # q, f are in units of eps too
    log_volume = volume.log()
    spatial = list(range(2, o.ndim))
    u = torch.softmax(o, 1)
    f = torch.zeros_like(volume)
    q = [torch.zeros_like(o) for _ in spatial]
    scale, z = torch.empty_like(o), torch.empty_like(o)
    for _ in range(problem.iterations):
        for y, dim in zip(q, spatial):
            n = o.shape[dim] - 1
            y.narrow(dim, 0, n).add_(u.narrow(dim, 0, n), alpha=tau).sub_(u.narrow(dim, 1, n), alpha=tau)
        torch.mul(q[0], q[0], out=scale)
        for y in q[1:]:
            scale.addcmul_(y, y)
        scale.clamp_(min=lam * lam).rsqrt_().mul_(lam)  # min(1, lam / |y|)
        torch.add(o, f, out=z)
        for y, dim in zip(q, spatial):
            n = o.shape[dim] - 1
            y.mul_(scale)
            z.sub_(y)  # the last entry of q along its axis stays 0
            z.narrow(dim, 1, n).add_(y.narrow(dim, 0, n))
        torch.softmax(z, 1, out=u)
        if "volume" not in problem.priors:
            continue
        change = log_volume - u.sum(spatial, keepdim=True).log()
        f += change
        z += change
        torch.softmax(z, 1, out=u)
    return u


def step(o: Any, log_volume: Any, u: Any, f: Any, q: tuple[Any, ...], tau: float, lam: float) -> tuple[Any, ...]:
    """One iteration without in-place updates: for autograd, and for compilers, which fuse it."""
    import torch
    from torch.nn.functional import pad

    spatial = list(range(2, o.ndim))
    y, norm = [], None
    for dual, dim in zip(q, spatial):
        n = o.shape[dim] - 1
        far = [0, 0] * (o.ndim - 1 - dim) + [0, 1]  # zero behind the far border
        y.append(dual - tau * pad(u.narrow(dim, 1, n) - u.narrow(dim, 0, n), far))
        norm = y[-1] * y[-1] if norm is None else norm + y[-1] * y[-1]
    scale = lam * norm.clamp(min=lam * lam).rsqrt()
    q = tuple(component * scale for component in y)
    z = o + f
    for dual, dim in zip(q, spatial):
        n = o.shape[dim] - 1
        near = [0, 0] * (o.ndim - 1 - dim) + [1, 0]
        z = z - dual + pad(dual.narrow(dim, 0, n), near)
    w = torch.softmax(z, 1)
    if log_volume is None:
        return w, f, q
    change = log_volume - w.sum(spatial, keepdim=True).log()
    return torch.softmax(z + change, 1), f + change, q


def forward_functional(features: Any, volume: Any, problem: Problem, iteration: Callable[..., Any] = step) -> Any:
    import torch

    o = features / problem.eps
    tau, lam = problem.tau / problem.eps, problem.lam / problem.eps
    log_volume = volume.log() if "volume" in problem.priors else None
    u = torch.softmax(o, 1)
    f = torch.zeros_like(volume)
    q = tuple(torch.zeros_like(o) for _ in problem.spatial)
    for _ in range(problem.iterations):
        u, f, q = iteration(o, log_volume, u, f, q, tau, lam)
    return u


def make(
    problem: Problem, device: str, backward: bool, iteration: Callable[..., Any] | None = None
) -> Callable[[], Any]:
    """`iteration`: a compiled `step`; None: eager."""
    import torch

    features, volume, grad_u = arrays(problem, device)

    def forward() -> Any:
        with torch.no_grad():
            if iteration is None:
                return forward_inplace(features, volume, problem)
            return forward_functional(features, volume, problem, iteration)

    def forward_backward() -> Any:
        o = features.detach().requires_grad_()
        u = forward_functional(o, volume, problem, iteration or step)
        (gradient,) = torch.autograd.grad(u, o, grad_u)
        return u.detach(), gradient

    return forward_backward if backward else forward
