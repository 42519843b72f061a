"""PyTorch with torch.compile: one iteration compiled for the given shape, the loop in Python.

Compiling all iterations as one graph takes minutes and gains nothing that a device would notice.
"""

from __future__ import annotations

import shutil
from typing import Any, Callable

from segprior_bench.problem import Problem

from . import torch_eager

NAME = "torch.compile"


def unavailable(device: str) -> str | None:
    if device == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return "no C++ compiler"
    return torch_eager.unavailable(device)


def make(problem: Problem, device: str, backward: bool) -> Callable[[], Any]:
    import torch

    torch._dynamo.reset()  # otherwise the second shape is compiled for "dynamic" shapes, which is slower
    return torch_eager.make(problem, device, backward, torch.compile(torch_eager.step, dynamic=False))
