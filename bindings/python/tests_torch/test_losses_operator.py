"""`torch.ops.segprior.loss` and `loss_backward` as operators: schema, fake tensors, compiled functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from losses_cases import CALLS, WEIGHTS, arguments_of, leaves, make, with_grad

import segprior.torch
from segprior.torch import losses

OPTIONS = "weights=0.01,1.0,0.7,-0.5,1.3 reduction=1"


@pytest.fixture
def deterministic() -> Iterator[None]:
    """`torch.empty` is then filled: opcheck compares memory that no one wrote too, the padding of `saved`."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def operands(grad: bool, *absent: str) -> list[Any]:
    """The tensors of the operator, in the order of its schema."""
    problem = make() | {"groups": torch.tensor([1, 0], dtype=torch.int32), "target": None}
    for key in absent:
        problem[key] = None
    if grad:
        problem = with_grad(problem)
    names = ("scores", "labels", "target", "mask", "labelled", "class_weights", "lower", "upper", "groups")
    return [problem[name] for name in names]


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("absent", [(), ("mask", "labelled", "class_weights", "upper", "groups")])
def test_opcheck(grad: bool, absent: tuple[str, ...]) -> None:
    torch.library.opcheck(torch.ops.segprior.loss.default, (*operands(grad, *absent), OPTIONS, False))


@pytest.mark.usefixtures("deterministic")
def test_opcheck_per_voxel() -> None:
    given = (*operands(True, "class_weights"), "weights=0.0,1.0,0.0,0.0,0.0", True)
    torch.library.opcheck(torch.ops.segprior.loss.default, given)


@pytest.mark.usefixtures("deterministic")
def test_opcheck_backward() -> None:
    given = (*operands(False), OPTIONS)
    saved = torch.ops.segprior.loss(*given, False)[-1]
    real = {"dtype": torch.float64}
    for incoming in (
        [torch.rand((), **real), None, None, None],
        [None, torch.rand(5, **real), torch.rand(5, 2, 3, **real), None],
    ):
        torch.library.opcheck(
            torch.ops.segprior.loss_backward.default, (*incoming, saved, *given, [0, 5, 6, 7])
        )


@pytest.mark.usefixtures("deterministic")
def test_deterministic_mode() -> None:
    own = with_grad(arguments_of("combined", make()))
    losses.combined(**own).backward()


def compare(compiled: Any, function: Any, own: dict[str, Any]) -> None:
    inputs = tuple(leaves(own).values())
    found, expected = compiled(**own), function(**own)
    assert torch.equal(found, expected)
    grad = torch.rand_like(expected)
    for a, b in zip(torch.autograd.grad(found, inputs, grad), torch.autograd.grad(expected, inputs, grad)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", CALLS)
def test_compile(name: str) -> None:
    function = CALLS[name][0]
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    compare(compiled, function, with_grad(arguments_of(name, make())))


def test_compile_unreduced() -> None:
    for name in ("focal", "dice", "size_penalty"):
        function = CALLS[name][0]
        own = with_grad(arguments_of(name, make()) | {"reduction": "none"})
        own["class_weights"].requires_grad_(name != "focal")
        compare(torch.compile(function, fullgraph=True, backend="aot_eager"), function, own)


def test_compile_dynamic() -> None:
    """One graph for all shapes, and a number that changes from call to call."""

    def function(scores: torch.Tensor, labels: torch.Tensor, weight: float) -> torch.Tensor:
        return losses.combined(scores, labels, cross_entropy=1.0, dice=weight)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for k, shape in enumerate([(2, 3, 5, 4), (3, 3, 7, 6), (5, 3, 4, 9)]):
        problem = make(shape)
        own = {"scores": problem["scores"].requires_grad_(), "labels": problem["labels"], "weight": 0.5 + k}
        compare(compiled, function, own)


def test_inductor() -> None:
    """Between operations that inductor fuses into kernels of its own."""

    def function(features: torch.Tensor, labels: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
        scores = (features * features.sigmoid()).permute(0, 3, 1, 2)
        return 2 * losses.combined(scores, labels, **WEIGHTS, lower=lower).exp()

    problem = make()
    features = problem["scores"].permute(0, 2, 3, 1).contiguous().requires_grad_()
    lower = problem["lower"].requires_grad_()
    inputs = (features, lower)
    found = torch.compile(function, fullgraph=True)(features, problem["labels"], lower)
    expected = function(features, problem["labels"], lower)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs)):
        torch.testing.assert_close(a, b)


def test_package_has_the_module() -> None:
    assert segprior.torch.losses is losses
