"""What the functions of `segprior.torch` ask of their tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidTypeError

HALF = (torch.float16, torch.bfloat16)
_FLOATS = (torch.float32, torch.float64, *HALF)


def require_tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise InvalidTypeError(f"{name} is {type(value).__name__}; it must be a torch.Tensor")
    return value


def require_floats(name: str, value: Any) -> Tensor:
    found = require_tensor(name, value)
    if found.dtype not in _FLOATS:
        raise InvalidTypeError(
            f"{name} has dtype {found.dtype}; it must be float32, float64, float16 or bfloat16"
        )
    return found
