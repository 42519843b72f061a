"""How the iterations of an operator ended: `Report`."""

from __future__ import annotations

import ctypes as ct
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _ffi

REPORT_BYTES = ct.sizeof(_ffi.Info)


class Report(NamedTuple):
    """One entry per image, or per linear system, on the operator's device: nothing has waited for it.

    Attributes:
        status: int32, numbers of `segprior.Status`. iterations: int32, those done.
        residual: float64, as in `segprior.ImageInfo` and `segprior.SystemInfo`; NaN if the iteration failed.
    """

    status: Tensor
    iterations: Tensor
    residual: Tensor


def read_report(raw: Tensor) -> Report:
    """`raw`: the C library's structs as bytes [..., REPORT_BYTES]."""
    words = raw.view(torch.int32)
    return Report(words[..., 0], words[..., 1], raw.view(torch.float64)[..., 1])
