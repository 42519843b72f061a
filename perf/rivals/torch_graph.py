"""PyTorch eager, its launches captured once in a CUDA graph: removes the launch overhead, keeps the traffic."""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench.problem import Problem

from . import torch_eager

NAME = "torch eager, CUDA graph"


def unavailable(device: str) -> str | None:
    return "for CUDA only" if device == "cpu" else torch_eager.unavailable(device)


def make(problem: Problem, device: str, backward: bool) -> Callable[[], Any]:
    import torch

    features, volume, grad_u = torch_eager.arrays(problem, device)

    def once() -> Any:
        if not backward:
            with torch.no_grad():
                return torch_eager.forward_inplace(features, volume, problem)
        o = features.detach().requires_grad_()
        u = torch_eager.forward_functional(o, volume, problem)
        return u.detach(), torch.autograd.grad(u, o, grad_u)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        once()  # allocations and lazy initialisation must not happen while capturing
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = once()

    def replay() -> Any:
        graph.replay()
        return result

    return replay
