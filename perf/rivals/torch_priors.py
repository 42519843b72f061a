"""PyTorch, eager: STD, VP-STD and SS-STD ([STD] Algorithms 1 to 3) as a user of the framework writes them.

The convolution of all classes is one grouped call of the framework's own conv2d or conv3d with zero padding.
`torch_priors_separable.py` is the same with one convolution per axis.
"""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench.problem import TD_SIGMA, TD_SIZE, Problem

from .torch_eager import arrays, unavailable  # noqa: F401  `unavailable` is part of a rival's interface

NAME = "torch eager, conv"


def supports(problem: Problem) -> bool:
    return "td" in problem.priors and problem.axes in (2, 3)


def taps(problem: Problem, like: Any) -> Any:
    import torch

    distance = torch.arange(TD_SIZE, dtype=like.dtype, device=like.device) - TD_SIZE // 2
    tap = torch.exp(-(distance**2) / (2 * TD_SIGMA**2))
    return tap / tap.sum()


def kernels(problem: Problem, like: Any, separable: bool) -> list[Any]:
    """Weights [I, 1, *K] of the grouped convolutions to apply one after another."""
    tap, axes, classes = taps(problem, like), problem.axes, like.shape[1]
    if separable:
        shapes = [[TD_SIZE if d == axis else 1 for d in range(axes)] for axis in range(axes)]
        return [tap.reshape(1, 1, *shape).expand(classes, 1, *shape).contiguous() for shape in shapes]
    kernel = tap
    for _ in range(axes - 1):
        kernel = kernel.unsqueeze(-1) * tap
    return [kernel.expand(classes, 1, *kernel.shape).contiguous()]


def convolve(x: Any, weights: list[Any]) -> Any:
    from torch.nn.functional import conv2d, conv3d

    for weight in weights:
        convolution = conv2d if x.ndim == 4 else conv3d
        x = convolution(x, weight, padding=[n // 2 for n in weight.shape[2:]], groups=x.shape[1])
    return x


def differences(u: Any) -> list[Any]:
    """Forward differences of [B, *S] along every axis, 0 at the far border."""
    from torch.nn.functional import pad

    found = []
    for dim in range(1, u.ndim):
        n = u.shape[dim] - 1
        far = [0, 0] * (u.ndim - 1 - dim) + [0, 1]
        found.append(pad(u.narrow(dim, 1, n) - u.narrow(dim, 0, n), far))
    return found


def divergence(p: list[Any]) -> Any:
    from torch.nn.functional import pad

    total = None
    for dim, q in enumerate(p, start=1):
        n = q.shape[dim] - 1
        inner = q.narrow(dim, 0, n)
        near, far = [0, 0] * (q.ndim - 1 - dim) + [1, 0], [0, 0] * (q.ndim - 1 - dim) + [0, 1]
        part = pad(inner, far) - pad(inner, near)
        total = part if total is None else total + part
    return total


def directions(problem: Problem, like: Any) -> list[Any]:
    import torch

    center = problem.star_center[0, 0]
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in problem.spatial]
    offsets = torch.meshgrid(*[float(c) - a for c, a in zip(center, axes)], indexing="ij")
    length = torch.sqrt(sum(d * d for d in offsets))
    inverse = torch.where(length > 0, 1 / length, torch.zeros_like(length))
    return [d * inverse for d in offsets]


def run(o: Any, volume: Any, problem: Problem, separable: bool) -> Any:
    import torch

    weights = kernels(problem, o, separable)
    star, bounded = "star" in problem.priors, "volume" in problem.priors
    u = torch.softmax(o / problem.init_eps, 1)
    g = torch.zeros_like(o[:, 0])
    f = torch.zeros_like(volume)
    s = directions(problem, o) if star else []
    log_volume = volume.log()
    spatial = list(range(2, o.ndim))
    for _ in range(problem.iterations):
        x = o - problem.lam * convolve(1 - 2 * u, weights)
        if star:
            slope = sum(a * b for a, b in zip(s, differences(u[:, 0])))
            g = torch.relu(g - problem.star_tau * slope)
            first = x[:, :1] - divergence([g * a for a in s]).unsqueeze(1)
            x = torch.cat([first, x[:, 1:]], 1)
        if bounded:
            w = torch.softmax((x + f) / problem.eps, 1)
            f = f + problem.eps * (log_volume - w.sum(spatial, keepdim=True).log())
            x = x + f
        u = torch.softmax(x / problem.eps, 1)
    return u


def make(problem: Problem, device: str, backward: bool, separable: bool = False) -> Callable[[], Any]:
    import torch

    features, volume, grad_u = arrays(problem, device)

    def forward() -> Any:
        with torch.no_grad():
            return run(features, volume, problem, separable)

    def forward_backward() -> Any:
        o = features.detach().requires_grad_()
        u = run(o, volume, problem, separable)
        (gradient,) = torch.autograd.grad(u, o, grad_u)
        return u.detach(), gradient

    return forward_backward if backward else forward
