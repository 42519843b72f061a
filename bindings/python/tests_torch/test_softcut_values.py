"""`segprior.torch.softcut` gives what `segprior.softcut` does, whatever the tensors' layout and dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from softcut_cases import CASES, make, reference

from segprior import Status
from segprior.torch import softcut, softcut_with_report


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_the_same_bits(name: str, dtype: torch.dtype) -> None:
    case = make(**CASES[name], dtype=dtype)
    expected = reference(case, tol=1e-5)
    assert torch.equal(softcut(**case.arguments, tol=1e-5), expected.x)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "cg", "max_iters": 3},
        {"solver": "jacobi", "tol": 1e-3},
        {"solver": "multigrid"},
        {"solver": "chebyshev", "path": "streaming"},
        {"solver": "cg", "norm": "l1", "absolute": True, "batch": True, "tol": 1e-2},
    ],
)
def test_options_arrive(options: dict[str, Any]) -> None:
    case = make((2, 2, 9, 11))
    expected = reference(case, **options)
    x, report = softcut_with_report(**case.arguments, **options)
    assert torch.equal(x, expected.x)
    assert report.iterations.tolist() == expected.info.iterations.tolist()
    assert report.residual.tolist() == expected.info.residual.tolist()
    assert report.status.tolist() == [[int(s) for s in row] for row in expected.info.status]
    assert report.iterations.dtype == report.status.dtype == torch.int32


def test_a_system_that_fails_is_nan_and_says_why() -> None:
    case = make((2, 2, 5, 6))
    case.scores[0, 1, 2, 3] = float("inf")
    case.edges[1][1, 0, 2, 3] = -1.0
    x, report = softcut_with_report(**case.arguments)
    ok = int(Status.CONVERGED)
    assert report.status.tolist() == [
        [ok, int(Status.NONFINITE_INPUT)],
        [int(Status.INVALID_PARAMETER), ok],
    ]
    assert x.isnan().all(3).all(2).tolist() == [[False, True], [True, False]]
    assert x.isfinite().all(3).all(2).tolist() == [[True, False], [False, True]]


def test_layouts_in_memory() -> None:
    case = make((2, 3, 6, 7), conductance=True, x0=True)
    expected = softcut(**case.arguments)
    transposed = case.map(lambda t: t.transpose(2, 3).contiguous().transpose(2, 3))
    strided = case.map(lambda t: t.repeat_interleave(2, 1)[:, ::2])
    last = case.map(lambda t: t.contiguous(memory_format=torch.channels_last))
    for other in (transposed, strided, last):
        assert not other.scores.is_contiguous()
        x = softcut(**other.arguments)
        assert torch.equal(x, expected) and x.is_contiguous()


def test_expanded_edges() -> None:
    case = make((2, 3, 6, 7), shared=True)
    expanded = tuple(w.expand(2, 3, *w.shape[2:]) for w in case.edges)
    assert torch.allclose(softcut(case.scores, expanded), softcut(case.scores, case.edges), atol=1e-5)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_16_bit_scores_are_solved_in_float32(half: torch.dtype) -> None:
    case = make((2, 3, 6, 7), conductance=True, dtype=half)
    wide = case.map(lambda t: t.float())
    x = softcut(**case.arguments, tol=1e-5)
    assert x.dtype == half and torch.equal(x, softcut(**wide.arguments, tol=1e-5).to(half))
    mixed = softcut(wide.scores, case.edges, conductance=wide.conductance, tol=1e-5)
    assert torch.equal(mixed, softcut(**wide.arguments, tol=1e-5))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_autocast_takes_16_bits_as_float32(half: torch.dtype) -> None:
    case = make((2, 3, 6, 7), conductance=True, dtype=half)
    expected = softcut(**case.map(lambda t: t.float()).arguments, tol=1e-5)
    double = make((2, 3, 6, 7), conductance=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = softcut(**case.arguments, tol=1e-5)
        assert softcut(**double.arguments).dtype == torch.float64
    assert x.dtype == torch.float32 and torch.equal(x, expected)


@pytest.mark.parametrize("shape", [(0, 3, 6, 7), (2, 0, 6, 7)])
def test_empty(shape: tuple[int, ...]) -> None:
    case = make(shape, shared=True).leaves()
    x, report = softcut_with_report(**case.arguments)
    assert x.shape == shape and report.status.shape == shape[:2]
    x.sum().backward()
    for tensor in case.differentiable:
        assert tensor.grad is not None and tensor.grad.shape == tensor.shape and not tensor.grad.any()


def test_a_result_is_connected_only_where_a_gradient_is_needed() -> None:
    case = make((1, 2, 5, 6))
    assert not softcut(**case.arguments).requires_grad
    leaves = case.leaves()
    with torch.no_grad():
        assert not softcut(**leaves.arguments).requires_grad
    x, report = softcut_with_report(**leaves.arguments)
    assert x.requires_grad and not any(part.requires_grad for part in report)


def test_the_function_is_the_operator() -> None:
    case = make((1, 2, 5, 6), diagonals=True)
    x = torch.ops.segprior.softcut(*case.slots, "solver=2 tolerance=1e-3")[0]
    assert torch.equal(x, softcut(**case.arguments, solver="jacobi", tol=1e-3))


def test_settings_that_are_tensors_are_read_at_each_call() -> None:
    case, tol = make((1, 2, 15, 16)), torch.tensor(1e-1)
    rough = softcut(**case.arguments, solver="cg", tol=tol)
    tol.fill_(1e-9)
    assert not torch.equal(rough, softcut(**case.arguments, solver="cg", tol=tol))
