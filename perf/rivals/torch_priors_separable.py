"""PyTorch, eager: torch_priors.py with the Gaussian's convolution split into one per axis."""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench.problem import Problem

from . import torch_priors
from .torch_priors import supports, unavailable  # noqa: F401  part of a rival's interface

NAME = "torch eager, conv per axis"


def make(problem: Problem, device: str, backward: bool) -> Callable[[], Any]:
    return torch_priors.make(problem, device, backward, separable=True)
