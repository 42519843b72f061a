"""PyTorch with torch.compile: the whole loss, and its backward pass, compiled for the given shape."""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench.losses_problem import LossProblem

from . import losses_torch
from .losses_torch import supports  # noqa: F401  part of a rival's interface
from .torch_compile import unavailable  # noqa: F401

NAME = "torch.compile"


def make(problem: LossProblem, device: str) -> Callable[[], Any]:
    import torch

    torch._dynamo.reset()  # otherwise the second shape is compiled for "dynamic" shapes, which is slower
    return losses_torch.make(problem, device, torch.compile(losses_torch.loss, dynamic=False))
