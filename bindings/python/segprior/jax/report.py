"""How the iteration of each image, or of each linear system, ended, as JAX arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Report(NamedTuple):
    """[B], one per image; of `softcut` [B, K], one per system. Compare `status` with `segprior.Status`."""

    status: Any  #: int32: how it ended
    iterations: Any  #: int32: iterations done
    residual: Any  #: float64 in JAX's 64-bit mode, else float32; NaN if the image or system failed


def read(info: Any, shape: tuple[int, ...]) -> Report:
    """The reports in an array int32 [n, 4] of segprior_info, as arrays of this shape."""
    info = jax.lax.stop_gradient(info)
    return Report(
        info[:, 0].reshape(shape), info[:, 1].reshape(shape), _float64(info[:, 2], info[:, 3]).reshape(shape)
    )


def _float64(low: Any, high: Any) -> Any:
    """The float64 numbers whose halves these int32 numbers are; rounded to float32 where JAX has no
    float64."""
    if jax.config.read("jax_enable_x64"):
        return jax.lax.bitcast_convert_type(jnp.stack([low, high], -1), jnp.float64)
    exponent = (high >> 20) & 0x7FF
    low_part = low.astype(jnp.uint32).astype(jnp.float32) * 2.0**-52
    fraction = (high & 0xFFFFF).astype(jnp.float32) * 2.0**-20 + low_part
    finite = jnp.where(exponent == 0, 0.0, jnp.ldexp(1 + fraction, exponent - 1023))
    value = jnp.where(exponent == 0x7FF, jnp.where(fraction == 0, jnp.inf, jnp.nan), finite)
    return jnp.where(high < 0, -value, value)
