"""Gradients of `segprior.torch.softcut`, and theirs."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from softcut_cases import CASES, Case, make, reference
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from segprior.errors import InvalidValueError, NotSupportedError
from segprior.torch import softcut

# Difference quotients of step 1e-6 would see the error of a rougher solve.
EXACT: dict[str, Any] = {"tol": 1e-13, "backward_tol": 1e-13}


def solve(case: Case, tensors: Any, **options: Any) -> torch.Tensor:
    return softcut(**case.with_tensors(tensors).arguments, **{**EXACT, **options})


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_every_argument(name: str) -> None:
    case = make(**CASES[name]).leaves()
    assert gradcheck(lambda *tensors: solve(case, tensors), case.differentiable, fast_mode=True)


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_of_every_argument(name: str) -> None:
    case = make(**CASES[name]).leaves()
    assert gradgradcheck(lambda *tensors: solve(case, tensors), case.differentiable, fast_mode=True)


def test_every_entry_of_the_derivatives() -> None:
    case = make((1, 2, 3, 3), diagonals=True, conductance=True, shared=True).leaves()
    assert gradcheck(lambda *tensors: solve(case, tensors), case.differentiable)
    assert gradgradcheck(lambda *tensors: solve(case, tensors), case.differentiable)


@pytest.mark.parametrize("wanted", [[0], [1], [2, 3], [5], [0, 4], [1, 5]])
def test_any_of_them_may_require_grad(wanted: list[int]) -> None:
    case = make((2, 2, 3, 4), diagonals=True, conductance=True)
    tensors = [t.requires_grad_(i in wanted) for i, t in enumerate(case.differentiable)]

    def f(*some: torch.Tensor) -> torch.Tensor:
        full = list(tensors)
        for i, t in zip(wanted, some):
            full[i] = t
        return solve(case, full)

    some = [tensors[i] for i in wanted]
    assert gradcheck(f, some, fast_mode=True) and gradgradcheck(f, some, fast_mode=True)
    f(*some).sum().backward()
    assert [t.grad is not None for t in tensors] == [i in wanted for i in range(len(tensors))]


def _members(value: Any) -> list[torch.Tensor]:
    return [] if value is None else list(value) if isinstance(value, tuple) else [value]


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_as_the_passes_of_segprior_softcut(name: str) -> None:
    options: dict[str, Any] = {"tol": 1e-6, "backward_tol": 1e-5, "backward_max_iters": 40}
    case = make(**CASES[name]).leaves()
    grad_x = torch.randn_like(case.scores).requires_grad_()
    tensors = case.differentiable
    found = grad(softcut(**case.arguments, **options), tensors, grad_x, create_graph=True)
    first = reference(case, **options).backward(grad_x.detach())
    expected = [
        t for name in ("scores", "edges", "diagonals", "conductance") for t in _members(getattr(first, name))
    ]
    assert len(found) == len(expected) and all(map(torch.equal, found, expected))

    cotangents = [torch.randn_like(t) for t in found]
    found = grad(found, [grad_x, *tensors], cotangents)
    parts = case.with_tensors(cotangents)
    names = ("scores", "edges", "diagonals", "conductance")
    second = first.backward(**{name: getattr(parts, name) for name in names})
    expected = [t for name in ("grad_x", *names) for t in _members(getattr(second, name))]
    assert len(found) == len(expected) and all(map(torch.equal, found, expected))


def test_a_gradient_penalty() -> None:
    case = make((1, 2, 4, 5)).leaves()

    def penalty(tensors: Any) -> torch.Tensor:
        x = solve(case, tensors)
        slopes = grad(x.square().sum(), tensors[0], create_graph=True)[0]
        return x.sum() + slopes.square().sum()

    tensors = case.differentiable
    found = grad(penalty(tensors), tensors)
    step = 1e-6
    for tensor, gradient in zip(tensors, found):
        direction = torch.randn_like(tensor)
        sides = []
        for sign in (step, -step):
            moved = [t + sign * direction if t is tensor else t for t in tensors]
            sides.append(penalty([t.detach().requires_grad_() for t in moved]).item())
        assert (gradient * direction).sum().item() == pytest.approx(
            (sides[0] - sides[1]) / (2 * step), rel=1e-6
        )


def test_third_derivatives_are_refused() -> None:
    case = make((1, 1, 4, 5)).leaves()
    first = grad(softcut(**case.arguments).square().sum(), case.edges[0], create_graph=True)[0]
    second = grad(first.square().sum(), case.scores, create_graph=True)[0]
    with pytest.raises(NotSupportedError, match="first and second derivatives"):
        second.sum().backward()


def test_the_operator_says_what_second_derivatives_need() -> None:
    case = make((1, 1, 4, 5)).leaves()
    x, _, saved = torch.ops.segprior.softcut(*case.slots, "")
    with pytest.raises(InvalidValueError, match=r"wanted = \[1\]; the gradients of the gradients need 0"):
        torch.ops.segprior.softcut_backward(x, x, saved, *case.slots, "", [1])


def test_transforms_of_torch_func() -> None:
    case = make((1, 2, 3, 4), diagonals=True, conductance=True)
    tensors = case.differentiable

    def loss(*some: torch.Tensor) -> torch.Tensor:
        return solve(case, some).pow(3).sum()

    everything = tuple(range(len(tensors)))
    leaves = case.leaves().differentiable
    for a, b in zip(torch.func.grad(loss, everything)(*tensors), grad(loss(*leaves), leaves)):
        assert torch.allclose(a, b)
    for i in (0, 1):
        hessian = torch.func.jacrev(torch.func.grad(loss, i), i)(*tensors)

        def of_one(tensor: torch.Tensor, i: int = i) -> torch.Tensor:
            return loss(*tensors[:i], tensor, *tensors[i + 1 :])

        assert torch.allclose(hessian, torch.autograd.functional.hessian(of_one, tensors[i]))
    per_sample = torch.func.vmap(torch.func.grad(loss))(*(torch.stack([t, 2 * t]) for t in tensors))
    assert torch.allclose(per_sample[1], torch.func.grad(loss)(*(2 * t for t in tensors)))


def test_a_capped_backward_pass() -> None:
    case = make((1, 1, 9, 9), weight=50.0).leaves()
    exact, rough = (
        grad(softcut(**case.arguments, solver="cg", backward_max_iters=n).square().sum(), case.scores)[0]
        for n in (None, 1)
    )
    assert not torch.allclose(exact, rough, rtol=1e-3)
    assert torch.cosine_similarity(exact.flatten(), rough.flatten(), 0) > 0.5


def test_layouts_of_the_incoming_gradient() -> None:
    case = make((2, 3, 5, 6), conductance=True).leaves()
    x = softcut(**case.arguments)
    dense = torch.randn_like(x)
    expected = grad(x, case.differentiable, dense, retain_graph=True)
    strided = dense.transpose(2, 3).contiguous().transpose(2, 3)
    assert not strided.is_contiguous()
    assert all(map(torch.equal, grad(x, case.differentiable, strided, retain_graph=True), expected))
    ones = grad(x, case.differentiable, torch.ones_like(x), retain_graph=True)
    assert all(map(torch.equal, grad(x.sum(), case.differentiable), ones))  # an expanded one


def test_gradients_of_views_and_expanded_tensors() -> None:
    case = make((2, 3, 5, 6), shared=True)
    edges = [w[:1].clone().requires_grad_() for w in case.edges]
    softcut(case.scores, tuple(w.expand(2, 3, -1, -1) for w in edges), **EXACT).square().sum().backward()
    full = [w[:1].expand(2, 3, -1, -1).clone().requires_grad_() for w in case.edges]
    softcut(case.scores, tuple(full), **EXACT).square().sum().backward()
    for one, each in zip(edges, full):
        assert torch.allclose(one.grad, each.grad.sum((0, 1), keepdim=True))


def test_gradients_of_16_bit_tensors() -> None:
    case = make((1, 2, 5, 6), dtype=torch.bfloat16).leaves()
    wide = case.map(lambda t: t.detach().float()).leaves()
    softcut(**case.arguments, tol=1e-5, backward_tol=1e-5).float().square().sum().backward()
    softcut(**wide.arguments, tol=1e-5, backward_tol=1e-5).square().sum().backward()
    for narrow, exact in zip(case.differentiable, wide.differentiable):
        assert narrow.grad.dtype == torch.bfloat16
        # bfloat16 has 8 bits: of x in the loss, and of the gradient.
        assert torch.allclose(
            narrow.grad.float(), exact.grad, rtol=2e-2, atol=2e-2 * exact.grad.abs().max().item()
        )


def test_a_change_in_place_is_noticed() -> None:
    case = make((1, 2, 5, 6)).leaves()
    edges = tuple(w.clone() for w in case.edges)
    x = softcut(case.scores, edges)
    with torch.no_grad():
        edges[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()
    x = softcut(**case.arguments)
    x.mul_(2)  # the operator keeps x too
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()


def test_saved_tensors_may_be_moved_and_recomputed() -> None:
    case = make((1, 2, 9, 10)).leaves()
    options: dict[str, Any] = {"solver": "multigrid"}  # whose saved state is the largest
    expected = grad(softcut(**case.arguments, **options).square().sum(), case.differentiable)
    with save_on_cpu():
        x = softcut(**case.arguments, **options)
    assert all(map(torch.equal, grad(x.square().sum(), case.differentiable), expected))

    def shifted(tensor: torch.Tensor) -> torch.Tensor:
        """A copy that is aligned for no more than its elements."""
        return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)

    with saved_tensors_hooks(shifted, lambda tensor: tensor):
        x = softcut(**case.arguments, **options)
    assert all(map(torch.equal, grad(x.square().sum(), case.differentiable), expected))

    def function(*tensors: torch.Tensor) -> torch.Tensor:
        return softcut(**case.with_tensors(tensors).arguments, **options).square().sum()

    x = checkpoint(function, *case.differentiable, use_reentrant=False)
    assert all(map(torch.equal, grad(x, case.differentiable), expected))


def test_backward_on_other_threads() -> None:
    case = make((1, 2, 9, 10)).leaves()
    expected = grad(softcut(**case.arguments).square().sum(), case.differentiable)
    losses = [softcut(**case.arguments).square().sum() for _ in range(4)]
    found: list[Any] = [None] * 4

    def run(i: int) -> None:
        found[i] = grad(losses[i], case.differentiable)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for gradients in found:
        assert all(map(torch.equal, gradients, expected))


def test_a_failed_system_has_nan_gradients_and_spoils_no_other() -> None:
    case = make((2, 2, 5, 6))
    case.edges[0][1, 1] = -1.0
    leaves = case.leaves()
    softcut(**leaves.arguments).sum().backward()
    for tensor in leaves.differentiable:
        assert tensor.grad.isnan().flatten(2).all(2).tolist() == [[False, False], [False, True]]


def test_x0_is_a_constant() -> None:
    case = make((1, 2, 5, 6), x0=True).leaves()
    case.x0.requires_grad_()
    softcut(**case.arguments).sum().backward()
    assert case.x0.grad is None and case.scores.grad is not None
    constants = make((1, 2, 5, 6), x0=True)
    constants.x0.requires_grad_()
    assert not softcut(**constants.arguments).requires_grad
