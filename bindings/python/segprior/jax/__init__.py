"""libsegprior inside JAX programs: `softmax`, `softcut` and `losses`, with gradients, on the CPU and on CUDA.

The functions have the arguments of `segprior` and its priors, and return JAX arrays. They are calls of the C
library in the compiled program (XLA's foreign function interface), not callbacks into Python: under `jit`
nothing of Python runs, and on CUDA nothing waits.

>>> import jax, jax.numpy as jnp, segprior.jax
>>> from segprior import TV
>>> features = jax.random.normal(jax.random.key(0), (1, 3, 16, 16))
>>> loss = lambda features, lam: segprior.jax.softmax(features, 0.5, tv=TV(lam))[:, 0].sum()
>>> gradient, of_lam = jax.jit(jax.grad(loss, argnums=(0, 1)))(features, 0.4)
>>> gradient.shape, of_lam.shape
((1, 3, 16, 16), ())

It needs jax >= 0.6 and libsegprior_jax.so, looked for where SEGPRIOR_JAX_LIBRARY says, inside the package,
and in `build/` of the source tree.
"""

import importlib.util

from ..errors import LibraryError

if importlib.util.find_spec("jax") is None:
    raise LibraryError("segprior.jax needs jax >= 0.6: pip install jax")

from ..priors import TV, Star, ThresholdDynamics, Volume
from ..report import Status
from . import losses
from ._library import require_jax
from .report import Report
from .softcut import SoftcutOutput, softcut, softcut_with_report
from .softmax import SoftmaxOutput, softmax, softmax_with_duals

require_jax()

__all__ = [
    "TV",
    "Report",
    "SoftcutOutput",
    "SoftmaxOutput",
    "Star",
    "Status",
    "ThresholdDynamics",
    "Volume",
    "losses",
    "softcut",
    "softcut_with_report",
    "softmax",
    "softmax_with_duals",
]
