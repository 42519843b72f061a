"""PyTorch, eager, without in-place updates: the layer as it is usually written, so that autograd can follow it.

For the backward race this is the code of torch_eager.py itself, so it takes part in forward only.
"""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench.problem import Problem

from . import torch_eager
from .torch_eager import unavailable  # noqa: F401  part of a rival's interface

NAME = "torch eager, not in place"
BACKWARD = False


def make(problem: Problem, device: str, backward: bool) -> Callable[[], Any]:
    return torch_eager.make(problem, device, False, torch_eager.step)
