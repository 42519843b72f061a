"""Entropic softmax with composable priors on the CPU and on CUDA, with gradients.

Total variation, threshold dynamics, volumes and star shapes; the papers' named methods: `segprior.presets`.
SoftCut: `softcut`. Losses for labels of any kind: `segprior.losses`; scores: `segprior.metrics`.

>>> import numpy as np, segprior
>>> noisy = np.random.default_rng(0).normal(size=(1, 2, 32, 32)).astype(np.float32)
>>> volume = segprior.Volume([256, 768])
>>> r = segprior.softmax(noisy, eps=0.5, iters=200, tv=segprior.TV(lam=1.0), volume=volume)
>>> r.u.shape, r.info[0].iterations
((1, 2, 32, 32), 200)
>>> bool(abs(r.u[0, 0].sum() - 256) < 1)
True
>>> g = r.backward(np.ones_like(noisy) / noisy.size)
>>> g.features.shape, g.volume.shape
((1, 2, 32, 32), (2,))
"""

from . import errors, losses, metrics, presets
from ._ffi import library_path
from ._version import __version__
from .contrast import contrast_edges
from .csr import CsrResult, csr_solve
from .errors import (
    DeviceError,
    InternalError,
    InvalidTypeError,
    InvalidValueError,
    LibraryError,
    NotSupportedError,
    OutOfMemoryError,
    SegpriorError,
)
from .priors import TV, Star, ThresholdDynamics, Volume
from .report import ImageInfo, Info, Status, SystemInfo, Systems
from .softcut import SoftcutGradients, SoftcutResult, SoftcutSecondGradients, softcut, softcut_csr
from .softmax import Gradients, Result, softmax

__all__ = [
    "CsrResult",
    "DeviceError",
    "Gradients",
    "ImageInfo",
    "Info",
    "InternalError",
    "InvalidTypeError",
    "InvalidValueError",
    "LibraryError",
    "NotSupportedError",
    "OutOfMemoryError",
    "Result",
    "SegpriorError",
    "SoftcutGradients",
    "SoftcutResult",
    "SoftcutSecondGradients",
    "Star",
    "Status",
    "SystemInfo",
    "Systems",
    "TV",
    "ThresholdDynamics",
    "Volume",
    "__version__",
    "contrast_edges",
    "csr_solve",
    "errors",
    "library_path",
    "losses",
    "metrics",
    "presets",
    "softcut",
    "softcut_csr",
    "softmax",
]
