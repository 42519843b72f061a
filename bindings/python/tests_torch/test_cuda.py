"""On a GPU: every operator against the CPU, streams, CUDA graphs, autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from softmax_problem import CASES, arguments, tensors
from torch import Tensor

import segprior
from segprior import TV, Star, ThresholdDynamics, Volume
from segprior.torch import (
    PriorSoftmax,
    SoftCut2d,
    lagrangian_proposal,
    losses,
    softcut,
    softmax,
    softmax_with_duals,
)


def _reason() -> str:
    if not torch.cuda.is_available():
        return "no GPU that torch can use"
    return "" if segprior._ffi.library().has_cuda() else "libsegprior was built without CUDA"


pytestmark = pytest.mark.skipif(bool(_reason()), reason=_reason())
DEVICE = torch.device("cuda", 0)
# Two correct implementations add up in different orders.
CLOSE = dict(rtol=1e-9, atol=1e-10)


def on_gpu(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().to(DEVICE).requires_grad_(t.requires_grad) for name, t in given.items()}


def compare(call: Callable[[dict[str, Tensor]], Tensor], leaves: dict[str, Tensor]) -> None:
    """Values and gradients of a call on both devices."""
    results = []
    for given in (leaves, on_gpu(leaves)):
        out = call(given)
        differentiable = [t for t in given.values() if t.requires_grad]
        weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape).to(out.device)
        results.append([out, *torch.autograd.grad((out * weights).sum(), differentiable)])
    for on_cpu, found in zip(*results):
        assert found.device == DEVICE
        torch.testing.assert_close(found.cpu(), on_cpu, **CLOSE)


@pytest.mark.parametrize("case", CASES)
def test_softmax(case: str) -> None:
    given = tensors()
    used = ("features", *CASES[case][0])
    leaves = {name: given[name].requires_grad_() for name in used}

    def call(named: dict[str, Tensor]) -> Tensor:
        more = arguments(case, named)
        if "mask" in more:
            more["mask"] = more["mask"].to(named["features"].device)
        return softmax(named["features"], iters=5, **more)

    compare(call, leaves)


def test_softcut_twice() -> None:
    leaves = {
        "scores": torch.randn(2, 3, 7, 8, dtype=torch.float64),
        "first": torch.rand(2, 3, 6, 8, dtype=torch.float64) + 0.1,
        "second": torch.rand(2, 3, 7, 7, dtype=torch.float64) + 0.1,
    }
    leaves = {name: t.requires_grad_() for name, t in leaves.items()}

    def gradient(p: dict[str, Tensor]) -> Tensor:
        x = softcut(p["scores"], [p["first"], p["second"]], tol=1e-12)
        return torch.autograd.grad(x.square().sum(), p["first"], create_graph=True)[0]

    compare(lambda p: softcut(p["scores"], [p["first"], p["second"]], tol=1e-12), leaves)
    compare(gradient, leaves)


def test_losses() -> None:
    scores = {"scores": torch.randn(2, 3, 7, 8, dtype=torch.float64, requires_grad=True)}
    labels = torch.randint(0, 3, (2, 7, 8))
    for loss in (losses.cross_entropy, losses.focal, losses.dice, losses.focal_dice):
        compare(lambda p, loss=loss: loss(p["scores"], labels.to(p["scores"].device)), scores)


def test_lagrangian_proposal() -> None:
    logits, lower, upper = torch.randn(2, 3, 7, 8), torch.tensor([10.0, 10, 10]), torch.tensor([30.0, 20, 20])
    found = lagrangian_proposal(logits.to(DEVICE), lower.to(DEVICE), upper.to(DEVICE))
    torch.testing.assert_close(found.cpu(), lagrangian_proposal(logits, lower, upper), rtol=1e-4, atol=1e-5)


def test_a_mixture_of_devices_is_an_error() -> None:
    features = torch.randn(1, 3, 4, 4, device=DEVICE)
    with pytest.raises(segprior.InvalidValueError, match="eps lives on cpu"):
        softmax(features, torch.tensor(0.5))
    with pytest.raises(segprior.InvalidValueError, match=r"star\[0\].center lives on cpu"):
        softmax(features, star=[Star(1, torch.ones(2))])


def problem(features: Tensor, lam: Tensor) -> Tensor:
    return softmax(features * 2, 0.5, 20, tv=TV(lam), td=ThresholdDynamics(0.2, 3)).square().sum()


def test_work_is_queued_on_the_current_stream() -> None:
    features = torch.randn(2, 3, 64, 64, device=DEVICE, requires_grad=True)
    lam = torch.tensor(0.3, device=DEVICE, requires_grad=True)
    expected = torch.autograd.grad(problem(features, lam), (features, lam))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)  # whoever ran on another stream would read too early
        late = (features.detach() + 0).requires_grad_()
        found = torch.autograd.grad(problem(late, lam), (late, lam))
    torch.cuda.current_stream().wait_stream(side)
    assert all(torch.equal(f, e) for f, e in zip(found, expected))


def test_nothing_waits_for_the_gpu() -> None:
    features = torch.randn(2, 3, 64, 64, device=DEVICE, requires_grad=True)
    lam = torch.tensor(0.3, device=DEVICE, requires_grad=True)
    problem(features, lam).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        problem(features, lam).backward()
        softmax_with_duals(features, tol=1e-3, tv=TV(lam))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def captured(step: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def test_a_cuda_graph_of_forward_and_backward() -> None:
    features = torch.randn(2, 3, 32, 32, device=DEVICE, requires_grad=True)
    lam = torch.tensor(0.3, device=DEVICE, requires_grad=True)
    out: dict[str, Any] = {}

    def step() -> None:
        out["grads"] = torch.autograd.grad(problem(features, lam), (features, lam))

    graph = captured(step)
    for scale in (1.0, 0.5):
        with torch.no_grad():
            features.copy_(scale * torch.randn_like(features))
            lam.fill_(0.3 * scale)
        graph.replay()
        expected = torch.autograd.grad(problem(features, lam), (features, lam))
        assert all(torch.equal(f, e) for f, e in zip(out["grads"], expected))


def test_a_cuda_graph_of_softcut_and_a_loss() -> None:
    scores = torch.randn(2, 3, 16, 16, device=DEVICE, requires_grad=True)
    edges = [torch.rand(2, 1, 15, 16, device=DEVICE) + 0.1, torch.rand(2, 1, 16, 15, device=DEVICE) + 0.1]
    labels = torch.randint(0, 3, (2, 16, 16), device=DEVICE)
    out: dict[str, Tensor] = {}

    def grad() -> Tensor:
        x = softcut(scores, edges, tol=1e-4, max_iters=50)
        return torch.autograd.grad(losses.cross_entropy(x, labels) + losses.dice(x, labels), scores)[0]

    def step() -> None:
        out["grad"] = grad()

    graph = captured(step)
    with torch.no_grad():
        scores.copy_(torch.randn_like(scores))
    graph.replay()
    assert torch.equal(out["grad"], grad())


def test_autocast() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=1), PriorSoftmax(tv=TV(0.3), iters=3)).to(
        DEVICE
    )
    images = torch.randn(2, 1, 16, 16, device=DEVICE)
    with torch.autocast("cuda", dtype=torch.float16):
        u = net(images)
        assert u.dtype == torch.float32
        loss = (
            losses.dice(net[0](images), torch.randint(0, 3, (2, 16, 16), device=DEVICE)) + u.square().mean()
        )
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits(dtype: torch.dtype) -> None:
    features = torch.randn(2, 3, 16, 16, device=DEVICE, dtype=dtype, requires_grad=True)
    u = softmax(features, 0.5, 5, tv=TV(0.3), volume=Volume(torch.tensor([50.0, 100, 106], device=DEVICE)))
    u.square().sum().backward()
    assert u.dtype == features.grad.dtype == dtype
    expected = softmax(features.detach().float(), 0.5, 5, tv=TV(0.3), volume=Volume([50.0, 100, 106]))
    assert torch.equal(u, expected.to(dtype))


def test_compiled() -> None:
    layer = PriorSoftmax(0.8, 4, tv=TV(0.3), learnable=("eps",)).to(DEVICE)
    features = torch.randn(2, 3, 16, 16, device=DEVICE, requires_grad=True)
    leaves = [features, *layer.parameters()]
    for mode in ("default", "reduce-overhead"):  # the latter with CUDA graphs
        compiled = torch.compile(layer, fullgraph=True, mode=mode)
        for _ in range(3):
            found = torch.autograd.grad(compiled(features * 2).square().sum(), leaves)
        expected = torch.autograd.grad(layer(features * 2).square().sum(), leaves)
        for f, e in zip(found, expected):
            torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-5)


def test_softcut_layer() -> None:
    torch.manual_seed(0)
    layer = SoftCut2d(4, 3)
    scores, features = torch.randn(1, 3, 9, 8), torch.randn(1, 4, 9, 8)
    expected = layer(scores, features)
    found = layer.to(DEVICE)(scores.to(DEVICE), features.to(DEVICE))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)
