"""The layers `SoftCut2d` and `SoftCut3d`: their edge head, values, gradients, and life as modules."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from segprior import Status
from segprior.errors import InvalidTypeError, InvalidValueError
from segprior.torch import SoftCut2d, SoftCut3d, softcut, softcut_with_report

LAYERS: dict[str, Any] = {
    "4 neighbours": lambda: SoftCut2d(5, 3),
    "8 neighbours": lambda: SoftCut2d(5, 3, 8, kernel_size=3, weight=20.0, conductance=True),
    "own weights": lambda: SoftCut2d(5, 3, 8, shared=False, conductance=True),
    "3-D": lambda: SoftCut3d(5, 3, conductance=True),
    "3-D, own weights": lambda: SoftCut3d(5, 3, shared=False, kernel_size=3),
}


def inputs(layer: torch.nn.Module, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    spatial = (6, 7) if isinstance(layer, SoftCut2d) else (4, 5, 6)
    random = torch.Generator().manual_seed(3)
    scores = torch.randn(2, 3, *spatial, generator=random)
    features = torch.randn(2, 5, *spatial, generator=random)
    return scores.to(dtype), features.to(dtype)


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return LAYERS[request.param]()


def test_weights_at_the_midpoints() -> None:
    """By hand: each voxel's value at both ends of an edge, one direction after another."""
    torch.manual_seed(0)
    layer = SoftCut2d(5, 3, 8, shared=False, weight=7.0, conductance=True)
    _, features = inputs(layer)
    maps = layer.head(features).detach().reshape(2, 5, 3, 6, 7)  # directions and d, then classes
    found = layer.edges(features)
    ends = {  # of the edge (y, x): offsets of its two voxels
        "down": (found.edges[0], (0, 0), (1, 0)),
        "right": (found.edges[1], (0, 0), (0, 1)),
        "down right": (found.diagonals[0], (0, 0), (1, 1)),
        "down left": (found.diagonals[1], (0, 1), (1, 0)),
    }
    for direction, (weights, a, b) in enumerate(ends.values()):
        for y, x in ((0, 0), (3, 2), (4, 5)):
            g = (maps[1, direction, 2, y + a[0], x + a[1]] + maps[1, direction, 2, y + b[0], x + b[1]]) / 2
            assert weights[1, 2, y, x].item() == pytest.approx(
                7 * math.log1p(math.exp(g)) / math.log(2), rel=1e-5
            )
    g = maps[0, 4, 1, 2, 3]
    assert found.conductance[0, 1, 2, 3].item() == pytest.approx(
        0.001 + 0.999 * math.log1p(math.exp(g)) / math.log(2), rel=1e-5
    )


def test_a_head_of_zeros_gives_the_initial_weight(layer: Any) -> None:
    assert not layer.head.bias.any()
    torch.nn.init.zeros_(layer.head.weight)
    found = layer.edges(inputs(layer)[1])
    for weights in (*found.edges, *(found.diagonals or ())):
        assert torch.allclose(weights, torch.tensor(layer.weight))
    if found.conductance is not None:
        assert torch.allclose(found.conductance, torch.tensor(1.0))


def test_value_is_that_of_softcut(layer: Any) -> None:
    scores, features = inputs(layer)
    x = layer(scores, features)
    edges, diagonals, d = layer.edges(features)
    p = scores if d is None else scores * d
    assert torch.equal(x, softcut(p, edges, diagonals, d, tol=1e-4, backward_tol=1e-4))
    slack = 1e-3  # of the tolerance
    assert (x.amax() <= scores.amax() + slack) and (x.amin() >= scores.amin() - slack)
    report = softcut_with_report(p, edges, diagonals, d, tol=1e-4).report
    assert (report.status == Status.CONVERGED).all()
    assert edges[0].shape[1] == (1 if layer.shared else 3)


def test_gradients(layer: Any) -> None:
    layer = layer.double()
    layer.options.update(tol=1e-13, backward_tol=1e-13)
    scores, features = (t.requires_grad_() for t in inputs(layer, torch.float64))
    parameters = tuple(layer.parameters())

    def function(scores: Tensor, features: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(dict(layer.named_parameters()), values))
        return torch.func.functional_call(layer, named, (scores, features))

    assert torch.autograd.gradcheck(function, (scores, features, *parameters), fast_mode=True)


def test_it_learns_where_to_stop() -> None:
    """A noisy image of two halves, and a feature that tells them apart: the weights across must fall."""
    torch.manual_seed(1)
    truth = torch.zeros(1, 1, 16, 16)
    truth[..., 8:] = 1
    scores = truth + 0.5 * torch.randn(1, 1, 16, 16)
    border = torch.zeros(1, 1, 16, 16)
    border[..., 7:9] = 1
    layer = SoftCut2d(1, 1, weight=2.0)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.2)
    before = (layer(scores, border) - truth).square().mean().item()
    for _ in range(40):
        optimiser.zero_grad()
        loss = (layer(scores, border) - truth).square().mean()
        loss.backward()
        optimiser.step()
    across = layer.edges(border).edges[1][0, 0, :, 7]
    assert loss.item() < 0.5 * before
    assert across.max() < 0.2 * layer.edges(border).edges[1][0, 0, :, 3].min()


def test_a_cheap_backward_pass() -> None:
    torch.manual_seed(0)
    layers = [SoftCut2d(5, 3, weight=50.0, solver="cg", backward_max_iters=n) for n in (None, 1)]
    layers[1].load_state_dict(layers[0].state_dict())
    scores, features = inputs(layers[0])
    values = [layer(scores, features) for layer in layers]
    assert torch.equal(*values)
    for x in values:
        x.square().sum().backward()
    assert not torch.allclose(layers[0].head.weight.grad, layers[1].head.weight.grad, rtol=1e-2)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_16_bits(half: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = SoftCut2d(5, 3, conductance=True)
    scores, features = inputs(layer)
    expected = layer(scores, features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = layer(scores.to(half), features)
    assert x.dtype == torch.float32 and torch.allclose(x, expected, atol=0.05)
    narrow = copy.deepcopy(layer).to(half)
    x = narrow(scores.to(half), features.to(half))
    assert x.dtype == half and torch.allclose(x.float(), expected, atol=0.05)
    x.float().sum().backward()
    assert narrow.head.weight.grad.isfinite().all()


def test_life_as_a_module(layer: Any) -> None:
    scores, features = inputs(layer)
    expected = layer(scores, features)
    memory = io.BytesIO()
    torch.save(layer.state_dict(), memory)
    memory.seek(0)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(scores, features), expected)
        other.reset_parameters()
        other.load_state_dict(torch.load(memory))
        memory.seek(0)
        assert torch.equal(other(scores, features), expected)
    assert sorted(layer.state_dict()) == ["head.bias", "head.weight"]
    assert "classes=3" in repr(layer) and "weight=" in repr(layer)
    last = [
        t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in (scores, features)
    ]
    assert torch.allclose(layer(*last), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["8 neighbours", "3-D"])
def test_compile(name: str) -> None:
    layer = LAYERS[name]()
    scores, features = inputs(layer)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found = compiled(scores, features)
    assert torch.allclose(found, layer(scores, features), atol=1e-5)
    found.sum().backward()
    assert layer.head.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: SoftCut2d(5, 3, 6), r"neighbours = 6; it must be 4 or 8"),
        (lambda: SoftCut2d(0, 3), r"in_channels = 0; it must be an integer >= 1"),
        (lambda: SoftCut2d(5, 0), r"classes = 0; it must be an integer >= 1"),
        (lambda: SoftCut2d(5, 3, kernel_size=2), r"kernel_size = 2; it must be odd"),
        (lambda: SoftCut3d(5, 3, weight=0.0), r"weight = 0.0; it must be > 0"),
        (lambda: SoftCut3d(5, 3, solver="lu"), r"solver is 'lu'; it must be 'auto'"),
        (lambda: SoftCut2d(5, 3, tol=-1), r"tol = -1.0; it must be > 0"),
        (lambda: SoftCut2d(5, 3, backward_max_iters=0), r"backward_max_iters = 0"),
        (
            lambda: call(features=torch.zeros(2, 4, 6, 7)),
            r"features has shape \(2, 4, 6, 7\); .*\[B, 5, \*S\]",
        ),
        (lambda: call(features=torch.zeros(2, 5, 6)), r"features has shape \(2, 5, 6\).* 2 spatial axes"),
        (lambda: call(features=torch.zeros(2, 5, 6, 8)), r"scores has .*; .* it must be \(2, 3, 6, 8\)"),
        (lambda: call(scores=torch.zeros(2, 2, 6, 7)), r"scores has .* it must be \(2, 3, 6, 7\)"),
    ],
)
def test_wrong_value(make: Any, text: str) -> None:
    with pytest.raises(InvalidValueError, match=text):
        make()


def test_wrong_type() -> None:
    with pytest.raises(InvalidTypeError, match="shared is 2; it must be True or False"):
        SoftCut2d(5, 3, shared=2)
    with pytest.raises(InvalidTypeError, match="features is NoneType; it must be a torch.Tensor"):
        call(features=None)
    with pytest.raises(InvalidTypeError, match="scores is list; it must be a torch.Tensor"):
        call(scores=[1.0])


def call(**change: Any) -> Tensor:
    tensors = {"scores": torch.zeros(2, 3, 6, 7), "features": torch.zeros(2, 5, 6, 7), **change}
    return SoftCut2d(5, 3)(**tensors)
