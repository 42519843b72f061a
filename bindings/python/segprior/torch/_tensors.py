"""What the functions of `segprior.torch` ask of their tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidTypeError, InvalidValueError, NotSupportedError

HALF = (torch.float16, torch.bfloat16)
_FLOATS = (torch.float32, torch.float64, *HALF)


def parameter_dtype(lead: Tensor) -> torch.dtype:
    """Of everything real in a call but the features or scores, what has their shape, and its gradient."""
    return torch.float64 if lead.dtype == torch.float64 else torch.float32


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


def require_images(name: str, tensor: Tensor, axes: str = "B, I") -> None:
    if not 3 <= tensor.dim() <= 5:
        shape = list(tensor.shape)
        raise InvalidValueError(f"{name} has shape {shape}; it must be [{axes}, *S] with 1 to 3 spatial axes")


def leading(name: str, value: Any) -> Tensor:
    """The tensor [B, I, *S] that a call is about; under autocast not of 16 bits, as torch.softmax has it."""
    found = require_floats(name, value)
    require_images(name, found)
    return found.float() if found.dtype in HALF and torch.is_autocast_enabled(found.device.type) else found


def tensor_of(name: str, numbers: Any, rule: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Sequences of numbers as a tensor; `rule`: its shapes."""
    if torch.is_grad_enabled() and _holds_variables(numbers):
        raise NotSupportedError(
            f"{name} is a sequence of tensors that require grad, which would be lost; give one tensor, "
            "as torch.stack makes it"
        )
    try:
        return torch.tensor(numbers, dtype=dtype, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidTypeError(
            f"{name} is {numbers!r}; it must be a tensor or numbers{rule and f' {rule}'}: {error}"
        ) from error


def _holds_variables(numbers: Any) -> bool:
    if isinstance(numbers, (list, tuple)):
        return any([_holds_variables(member) for member in numbers])
    return isinstance(numbers, Tensor) and numbers.requires_grad
