"""Triton, 2-D float32: two kernels an iteration, as a good user writes them without libsegprior's tricks.

`dual`: reads w of the voxel and of its neighbours below and to the right (cached), normalises them to u, updates
and projects q. `primal`: reads o and q, writes w = S(o - div q + f) and each block's sums of w. Between the two
a tiny torch expression turns the sums into the next volume dual; u = normalise(w exp(change of f)), so no second
exponential. About 36 B per voxel, class and iteration. CPU: only under TRITON_INTERPRET=1, to check the results.
"""

from __future__ import annotations

import os
from typing import Any, Callable

from segprior_bench.problem import Problem

from . import torch_eager

NAME = "Triton kernels"
BACKWARD = False


def unavailable(device: str) -> str | None:
    reason = torch_eager.unavailable(device)
    if reason is not None:
        return reason
    try:
        import triton  # noqa: F401
    except Exception as error:
        return f"triton cannot be imported ({error})"
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "for CUDA only"
    return None


def supports(problem: Problem) -> bool:
    return problem.method == "vptv" and problem.axes == 2 and problem.dtype == "float32"


_kernels: Any = None


def _build() -> Any:
    """Kernels are built on first use, so that importing this module does not need triton."""
    global _kernels, tl, load_u  # a kernel looks up names in its module
    if _kernels is not None:
        return _kernels
    import triton
    import triton.language as tl

    @triton.jit
    def load_u(w, boost, base, x, inside, C: tl.constexpr, CP: tl.constexpr, J, image):
        # u at voxels x, [CP, BLOCK], from w and exp(change of f)
        c = tl.arange(0, CP)[:, None]
        value = tl.load(w + base + c * J + x[None, :], mask=(c < C) & inside[None, :], other=0.0)
        value *= tl.load(boost + image * C + c, mask=c < C, other=0.0)
        return value / tl.maximum(tl.sum(value, 0), 1e-30)[None, :]

    @triton.jit
    def dual(w, boost, q, tau, lam, H, W, C: tl.constexpr, CP: tl.constexpr, BLOCK: tl.constexpr):
        J = H * W
        image = tl.program_id(1).to(tl.int64)
        base = image * C * J
        x = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = x < J
        below, right = inside & (x < J - W), inside & (x % W < W - 1)
        u = load_u(w, boost, base, x, inside, C, CP, J, image)
        du0 = tl.where(below[None, :], load_u(w, boost, base, x + W, below, C, CP, J, image) - u, 0.0)
        du1 = tl.where(right[None, :], load_u(w, boost, base, x + 1, right, C, CP, J, image) - u, 0.0)
        c = tl.arange(0, CP)[:, None]
        mask = (c < C) & inside[None, :]
        at = q + 2 * base + 2 * c * J + x[None, :]  # q [B, I, 2, H, W]
        y0 = tl.load(at, mask=mask, other=0.0) - tau * du0
        y1 = tl.load(at + J, mask=mask, other=0.0) - tau * du1
        scale = tl.minimum(1.0, lam / tl.sqrt(tl.maximum(y0 * y0 + y1 * y1, 1e-30)))
        tl.store(at, y0 * scale, mask=mask)
        tl.store(at + J, y1 * scale, mask=mask)

    @triton.jit
    def primal(o, q, f, w, sums, H, W, blocks, C: tl.constexpr, CP: tl.constexpr, BLOCK: tl.constexpr):
        J = H * W
        image = tl.program_id(1).to(tl.int64)
        base = image * C * J
        x = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = x < J
        c = tl.arange(0, CP)[:, None]
        mask = (c < C) & inside[None, :]
        at = q + 2 * base + 2 * c * J + x[None, :]
        div = tl.load(at, mask=mask, other=0.0) + tl.load(at + J, mask=mask, other=0.0)
        div -= tl.load(at - W, mask=mask & (x >= W)[None, :], other=0.0)
        div -= tl.load(at + J - 1, mask=mask & (x % W > 0)[None, :], other=0.0)
        z = tl.load(o + base + c * J + x[None, :], mask=mask, other=float("-inf"))
        z += tl.load(f + image * C + c, mask=c < C, other=0.0) - div
        z = tl.where(c < C, z, float("-inf"))
        e = tl.exp(z - tl.where(inside, tl.max(z, 0), 0.0)[None, :])
        e = e / tl.maximum(tl.sum(e, 0), 1e-30)[None, :]
        tl.store(w + base + c * J + x[None, :], e, mask=mask)
        classes = tl.arange(0, CP)
        at_sums = sums + (image * C + classes) * blocks + tl.program_id(0)
        tl.store(at_sums, tl.sum(e, 1), mask=classes < C)

    _kernels = dual, primal
    return _kernels


def make(problem: Problem, device: str, backward: bool) -> Callable[[], Any]:
    import torch

    dual, primal = _build()
    features, volume, _ = torch_eager.arrays(problem, device)
    batch, classes, height, width = problem.shape
    padded = 1 << (classes - 1).bit_length()
    block = max(32, 1024 // padded)
    blocks = -(-problem.voxels // block)
    tau, lam = problem.tau / problem.eps, problem.lam / problem.eps
    constants = dict(C=classes, CP=padded, BLOCK=block)
    log_volume = volume.reshape(batch, classes).log()
    o = features / problem.eps
    u, w = torch.empty_like(o), torch.empty_like(o)
    q = torch.empty(batch, classes, 2, height, width, device=device)
    sums = torch.empty(batch, classes, blocks, device=device)

    def call() -> Any:
        torch.softmax(o, 1, out=w)
        q.zero_()
        f = torch.zeros_like(log_volume)
        boost = torch.ones_like(f)
        for _ in range(problem.iterations):
            dual[(blocks, batch)](w, boost, q, tau, lam, height, width, **constants)
            primal[(blocks, batch)](o, q, f, w, sums, height, width, blocks, **constants)
            change = log_volume - sums.sum(2).log()
            f = f + change
            boost = change.exp()
        torch.mul(w, boost[:, :, None, None], out=u)
        return u.div_(u.sum(1, keepdim=True))

    return call
