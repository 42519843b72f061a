"""`segprior.torch.softmax` under torch.compile, opcheck, vmap and the transforms of torch.func."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from softmax_problem import CASES, arguments, mask, tensors
from torch import Tensor

from segprior import TV, NotSupportedError, Volume
from segprior.torch import PriorSoftmax, softmax, softmax_with_duals
from segprior.torch._softmax_op import INPUTS

OPTIONS = "iterations=4 eps=0.8 backward_mode=1"


@pytest.fixture(autouse=True)
def _compile_anew() -> None:
    torch._dynamo.reset()


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Fills torch.empty: opcheck compares what lies between the parts of `saved`, too."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def operator_inputs(**given: Tensor) -> list[Tensor | None]:
    return [given.get(name) for name in INPUTS]


def sets_of_inputs() -> dict[str, tuple[list[Tensor | None], str]]:
    given = {name: t.requires_grad_() for name, t in tensors().items()}
    features, single = (
        given["features"],
        {n: given[n].detach().reshape(1) for n in ("eps", "tv_lam", "td_sigma")},
    )
    leaf = {name: t.requires_grad_() for name, t in single.items()}
    return {
        "plain": (operator_inputs(features=features), OPTIONS),
        "constants": (operator_inputs(features=features.detach()), OPTIONS),
        "tv volume": (
            operator_inputs(
                features=features,
                eps=leaf["eps"],
                tv_lam=leaf["tv_lam"],
                tv_edge=given["tv_edge"],
                volume=given["volume"],
            ),
            f"{OPTIONS} tv=1",
        ),
        "td star mask": (
            operator_inputs(
                **dict(features=features, td_sigma=leaf["td_sigma"], mask=mask().to(torch.uint8)[None]),
                star_center=given["center"].detach()[:, None].requires_grad_(),
            ),
            f"{OPTIONS} td=1 td_size=3 star_count=1 star_classes=1",
        ),
    }


@pytest.mark.parametrize("duals", [False, True])
@pytest.mark.parametrize("name", sets_of_inputs())
def test_opcheck(name: str, duals: bool, deterministic: None) -> None:
    inputs, options = sets_of_inputs()[name]
    torch.library.opcheck(torch.ops.segprior.softmax, (*inputs, options, 2, False, duals))


@pytest.mark.parametrize("name", ["plain", "tv volume", "td star mask"])
def test_opcheck_of_backward(name: str, deterministic: None) -> None:
    inputs, options = sets_of_inputs()[name]
    inputs = [t if t is None else t.detach() for t in inputs]
    u, _, _, saved = torch.ops.segprior.softmax(*inputs, options, 2, True, False)
    wanted = [i for i, t in enumerate(inputs[:14]) if t is not None]
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    options += " checkpoint_interval=2"
    torch.library.opcheck(
        torch.ops.segprior.softmax_backward,
        (torch.randn_like(u), u, saved, *inputs, options, wanted),
        test_utils=tests,
    )


@pytest.mark.parametrize("case", CASES)
def test_one_graph_with_its_backward(case: str) -> None:
    given = tensors()
    used = ("features", *CASES[case][0])
    leaves = [given[name].clone().requires_grad_() for name in used]

    def loss(*values: Tensor) -> Tensor:
        named = {**given, **dict(zip(used, values))}
        return softmax(2 * named["features"], iters=4, **arguments(case, named)).square().sum()

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Dynamo")
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves)
    expected = loss(*leaves)
    assert torch.equal(compiled, expected)
    for found, wanted in zip(torch.autograd.grad(compiled, leaves), torch.autograd.grad(expected, leaves)):
        assert torch.equal(found, wanted)


def test_duals_in_a_compiled_function() -> None:
    features = torch.randn(1, 3, 8, 8)

    def call(f: Tensor) -> Any:
        return softmax_with_duals(f, 0.8, 5, tv=TV(0.3), volume=Volume([20.0, 20.0, 24.0]))

    found, expected = torch.compile(call, fullgraph=True, backend="aot_eager")(features), call(features)
    assert torch.equal(found.tv_dual, expected.tv_dual) and torch.equal(
        found.volume_dual, expected.volume_dual
    )
    assert torch.equal(found.report.iterations, expected.report.iterations)


def test_inductor() -> None:
    layer = PriorSoftmax(0.8, 4, tv=TV(0.3), learnable=("eps", "tv_lam"))
    features = torch.randn(2, 3, 8, 8, requires_grad=True)
    leaves = [features, *layer.parameters()]
    compiled = torch.compile(layer, fullgraph=True)
    losses = [f(features * 2).square().sum() for f in (compiled, layer)]
    torch.testing.assert_close(losses[0], losses[1])
    for found, wanted in zip(*[torch.autograd.grad(loss, leaves) for loss in losses]):
        torch.testing.assert_close(found, wanted)


def test_dynamic_shapes_and_numbers() -> None:
    def call(f: Tensor, eps: float, iters: int) -> Tensor:
        return softmax(f, eps, iters, tv=TV(0.3), volume=Volume([1.0, 2.0, 3.0]))

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager", dynamic=True)
    for size, eps, iters in ((8, 0.5, 3), (9, 0.6, 4), (10, 0.7, 5), (11, 0.5, 6)):
        features = torch.randn(size - 6, 3, size, 7, requires_grad=True)
        found, expected = compiled(features, eps, iters), call(features, eps, iters)
        assert torch.equal(found, expected)
        grads = [torch.autograd.grad(u.square().sum(), features)[0] for u in (found, expected)]
        assert torch.equal(*grads)


def test_compiled_under_no_grad_and_autocast() -> None:
    features = torch.randn(1, 3, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    compiled = torch.compile(lambda f: softmax(f, 0.8, 4, tv=TV(0.3)), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(features), softmax(features, 0.8, 4, tv=TV(0.3)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(compiled(features), softmax(features.float(), 0.8, 4, tv=TV(0.3)))


def test_export() -> None:
    program = torch.export.export(PriorSoftmax(0.8, 4, tv=TV(0.3)), (torch.randn(1, 3, 8, 8),))
    features = torch.randn(1, 3, 8, 8)
    assert torch.equal(program.module()(features), softmax(features, 0.8, 4, tv=TV(0.3)))


@pytest.mark.parametrize("in_dims", [(0, None, None), (1, 0, None), (None, 0, 0), (2, None, 0), (-1, 0, 0)])
def test_vmap(in_dims: tuple[int | None, ...]) -> None:
    shape = (2, 3, 5, 4)
    features = torch.randn(shape) if in_dims[0] is None else torch.randn(4, *shape).movedim(0, in_dims[0])
    eps = torch.rand(4) + 0.5 if in_dims[1] == 0 else torch.tensor(0.7)
    volume = torch.tensor([5.0, 7.0, 8.0]) + (torch.rand(4, 1) if in_dims[2] == 0 else 0)
    leaves = [t.requires_grad_() for t in (features, eps, volume)]

    def call(f: Tensor, e: Tensor, v: Tensor) -> Tensor:
        return softmax(f, e, 3, tv=TV(0.3), volume=Volume(v))

    rows = [[t if d is None else t.select(d, k) for t, d in zip(leaves, in_dims)] for k in range(4)]
    expected, found = torch.stack([call(*row) for row in rows]), torch.vmap(call, in_dims)(*leaves)
    assert torch.equal(found, expected)
    grad = torch.randn_like(found)
    for f, w in zip(torch.autograd.grad(found, leaves, grad), torch.autograd.grad(expected, leaves, grad)):
        torch.testing.assert_close(f, w)


def test_vmap_of_nothing() -> None:
    with pytest.raises(NotSupportedError, match="axis of 0 elements"):
        torch.vmap(softmax)(torch.randn(0, 1, 3, 4, 4))


def test_transforms_of_torch_func() -> None:
    features, w = (
        torch.randn(2, 1, 3, 5, 4, dtype=torch.float64),
        torch.randn(1, 3, 5, 4, dtype=torch.float64),
    )

    def loss(f: Tensor, e: Tensor) -> Tensor:
        return (softmax(f, e, 3, tv=TV(0.3)) * w).sum()

    eps = torch.tensor(0.8, dtype=torch.float64)
    leaves = [features[0].clone().requires_grad_(), eps.clone().requires_grad_()]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    for found, wanted in zip(torch.func.grad(loss, (0, 1))(features[0], eps), expected):
        assert torch.equal(found, wanted)
    per_sample = torch.vmap(torch.func.grad(loss, (0, 1)), (0, None))(features, eps)
    for found, wanted in zip(per_sample, expected):
        assert torch.equal(found[0], wanted)
    _, pull_back = torch.func.vjp(lambda f: softmax(f, eps, 3, tv=TV(0.3)), features[0])
    assert torch.equal(pull_back(w)[0], expected[0])
    rows = torch.func.jacrev(lambda f: softmax(f, eps, 3, tv=TV(0.3)).sum((0, 2, 3)))(features[0])
    assert rows.shape == (3, *features[0].shape)
