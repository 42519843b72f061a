"""JAX: the iteration under jit as one lax.scan; the gradient by jax.grad through it."""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench.problem import Problem

NAME = "JAX jit scan"
WALL_CLOCK = True  # it works on streams of its own


def unavailable(device: str) -> str | None:
    try:
        import jax
    except Exception as error:
        return f"jax cannot be imported ({error})"
    try:
        jax.devices("gpu" if device == "cuda" else "cpu")
    except RuntimeError as error:
        return f"jax has no such device ({error})"
    return None


def supports(problem: Problem) -> bool:
    return problem.method == "vptv"


def make(problem: Problem, device: str, backward: bool) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    where = jax.devices("gpu" if device == "cuda" else "cpu")[0]
    spatial = tuple(range(2, 2 + problem.axes))
    tau, lam = problem.tau / problem.eps, problem.lam / problem.eps

    def cut(a: Any, dim: int, begin: int, end: int) -> Any:
        return jax.lax.slice_in_dim(a, begin, end + a.shape[dim] if end <= 0 else end, axis=dim)

    def padded(a: Any, dim: int, before: int, after: int) -> Any:
        return jnp.pad(a, [(before, after) if axis == dim else (0, 0) for axis in range(a.ndim)])

    def forward(features: Any, volume: Any) -> Any:
        o, log_volume = features / problem.eps, jnp.log(volume)

        def step(state: Any, _: Any) -> Any:
            u, f, q = state
            y = [d - tau * padded(cut(u, a, 1, 0) - cut(u, a, 0, -1), a, 0, 1) for d, a in zip(q, spatial)]
            scale = lam * jax.lax.rsqrt(jnp.maximum(sum(c * c for c in y), lam * lam))
            q = tuple(c * scale for c in y)
            z = o + f
            for d, a in zip(q, spatial):
                z = z - d + padded(cut(d, a, 0, -1), a, 1, 0)
            w = jax.nn.softmax(z, axis=1)
            change = log_volume - jnp.log(w.sum(spatial, keepdims=True))
            return (jax.nn.softmax(z + change, axis=1), f + change, q), None

        start = (jax.nn.softmax(o, axis=1), jnp.zeros_like(volume), tuple(jnp.zeros_like(o) for _ in spatial))
        return jax.lax.scan(step, start, None, length=problem.iterations)[0][0]

    def forward_backward(features: Any, volume: Any, grad_u: Any) -> Any:
        u, pull = jax.vjp(lambda o: forward(o, volume), features)
        return u, pull(grad_u)[0]

    volume = problem.volume.reshape(*problem.shape[:2], *[1] * problem.axes)
    given = [problem.features, volume, problem.grad_u] if backward else [problem.features, volume]
    inputs = [jax.device_put(a, where) for a in given]
    compiled = jax.jit(forward_backward if backward else forward)
    return lambda: jax.block_until_ready(compiled(*inputs))
