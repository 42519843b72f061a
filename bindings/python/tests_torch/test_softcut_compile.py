"""The operators of SoftCut as torch's machinery sees them: schemas, fake tensors, torch.compile, vmap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from softcut_cases import CASES, Case, make
from torch import Tensor
from torch.autograd import grad

from segprior.torch import softcut, softcut_with_report

OPS = torch.ops.segprior
OPTIONS = "tolerance=1e-10 backward_tolerance=1e-10"


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Fills uninitialised memory, so that the padding of the saved state can be compared."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def _backward_arguments(case: Case) -> tuple[list[Any], list[int]]:
    """Of `softcut_backward`, for all gradients, and which these are."""
    x, _, saved = OPS.softcut(*case.map(lambda t: t.detach()).slots, OPTIONS)
    wanted = [i for i, t in enumerate(case.slots[:7]) if t is not None]
    return [torch.randn_like(x), x, saved, *case.slots, OPTIONS, wanted], wanted


@pytest.mark.parametrize("name", ["1-D", "2-D, 8 neighbours, shared", "3-D"])
def test_opcheck(name: str, deterministic: None) -> None:
    case = make(**CASES[name]).leaves()
    torch.library.opcheck(OPS.softcut.default, (*case.slots, OPTIONS))
    arguments, wanted = _backward_arguments(case)
    arguments[0].requires_grad_()
    torch.library.opcheck(OPS.softcut_backward.default, arguments)

    constant = case.map(lambda t: t.detach())
    arguments, wanted = _backward_arguments(constant)
    grad_x, x, saved, *rest = arguments
    grad_scores = OPS.softcut_backward(*arguments)[0]
    cotangents = [None if t is None else torch.randn_like(t) for t in constant.slots[:7]]
    rest[-1] = [0, *(1 + i for i in wanted)]
    torch.library.opcheck(OPS.softcut_double_backward.default, (*cotangents, x, grad_scores, saved, *rest))


def _loss(case: Case, tensors: Any) -> Tensor:
    x, report = softcut_with_report(**case.with_tensors([t * 1.5 for t in tensors]).arguments, tol=1e-10)
    return x.square().sum() + 0 * report.iterations.sum()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_is_one_graph_with_the_same_gradients(backend: str) -> None:
    case = make((2, 2, 5, 6), diagonals=True, conductance=True, shared=True).leaves()
    compiled = torch.compile(lambda *tensors: _loss(case, tensors), fullgraph=True, backend=backend)
    found, expected = (f(*case.differentiable) for f in (compiled, lambda *t: _loss(case, t)))
    assert torch.allclose(found, expected)
    for a, b in zip(grad(found, case.differentiable), grad(expected, case.differentiable)):
        assert torch.allclose(a, b)


def test_compile_serves_any_shape() -> None:
    function = lambda scores, *edges: softcut(scores * 1.5, edges, tol=1e-10)  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for shape in ((2, 2, 5, 6), (3, 2, 7, 4), (1, 4, 9, 11)):
        tensors = make(shape).leaves().differentiable
        found, expected = compiled(*tensors), function(*tensors)
        assert torch.equal(found, expected)
        assert all(map(torch.equal, grad(found.sum(), tensors), grad(expected.sum(), tensors)))


def test_compile_warns_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    tensors = make((1, 2, 5, 6)).differentiable
    torch.compile(lambda p, *w: softcut(p, w), fullgraph=True, backend="aot_eager")(*tensors)
    assert not [w for w in recwarn if "segprior" in str(w.message) or "lru_cache" in str(w.message)]


def test_vmap_is_one_call_after_another() -> None:
    cases = [make((1, 2, 5, 6), seed=i) for i in range(3)]
    stacked = [torch.stack(column) for column in zip(*(case.differentiable for case in cases))]
    found = torch.vmap(lambda p, *w: softcut(p, w))(*stacked)
    for x, case in zip(found, cases):
        assert torch.equal(x, softcut(**case.arguments))


def test_fake_tensors_have_the_right_shapes() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        case = make((2, 3, 5, 6)).map(mode.from_tensor)
        x, report = softcut_with_report(**case.arguments)
    assert x.shape == (2, 3, 5, 6) and report.status.shape == (2, 3)
