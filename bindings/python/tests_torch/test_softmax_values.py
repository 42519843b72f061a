"""`segprior.torch.softmax` and its gradients are what `segprior.softmax` computes, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from softmax_problem import CASES, B, arguments, reference, tensors

import segprior
import segprior.torch
from segprior import TV, InvalidValueError, Star, Volume
from segprior.torch import softmax, softmax_with_duals

NAMES = {"center": "star_center", "shared_center": "star_center", "shared_volume": "volume"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_numpy_interface(case: str, dtype: torch.dtype) -> None:
    given = tensors(dtype)
    used = ("features", *CASES[case][0])
    leaves = {name: given[name].clone().requires_grad_() for name in used}
    u = softmax(leaves["features"], iters=5, **arguments(case, leaves))
    expected = reference(case, given, 5)
    assert torch.equal(u, expected.u)

    grad_u = torch.randn_like(u)
    u.backward(grad_u)
    found = expected.backward(grad_u)
    for name in used:
        wanted = getattr(found, NAMES.get(name, name))
        if name in ("center", "shared_center"):
            wanted = wanted[0 if name == "center" else 1]
        if name == "star_tau":
            wanted = wanted.sum()  # one step for both stars
        gradient = leaves[name].grad
        assert gradient is not None and gradient.shape == leaves[name].shape
        # Sums over the batch, of what the batch shares, are torch's here.
        shared = name in ("shared_center", "shared_volume", "star_tau")
        tolerance = dict(rtol=4 * torch.finfo(dtype).eps, atol=1e-6) if shared else dict(rtol=0, atol=0)
        torch.testing.assert_close(gradient, wanted.reshape(gradient.shape), **tolerance)


def test_duals_and_report() -> None:
    given = tensors()
    out = softmax_with_duals(given["features"], iters=40, tol=1e-3, **arguments("all", given))
    expected = reference("all", given, 40, tol=1e-3)
    for name in ("u", "tv_dual", "volume_dual", "star_dual"):
        assert torch.equal(getattr(out, name), getattr(expected, name)), name
    assert out.report.status.tolist() == [int(status) for status in expected.info.status]
    assert out.report.iterations.tolist() == expected.info.iterations.tolist()
    assert out.report.residual.tolist() == expected.info.residual.tolist()
    assert out.report.status.dtype == out.report.iterations.dtype == torch.int32


def test_duals_are_absent_without_their_prior_and_have_no_gradient() -> None:
    features = tensors()["features"].requires_grad_()
    out = softmax_with_duals(features, iters=3, volume=Volume([10, 12, 20]))
    assert out.tv_dual is None and out.star_dual is None
    assert out.u.requires_grad and not out.volume_dual.requires_grad
    assert torch.equal(out.u, softmax(features, iters=3, volume=Volume([10, 12, 20])))


def test_warm_start_continues() -> None:
    features, prior = tensors()["features"], dict(tv=TV(0.4), volume=Volume([10, 12, 20]))
    first = softmax_with_duals(features, iters=7, **prior)
    expected = segprior.softmax(
        features, iters=4, warm_start=segprior.softmax(features, iters=7, **prior), **prior
    )
    assert torch.equal(softmax(features, iters=4, warm_start=first, **prior), expected.u)
    duals = (first.tv_dual, first.volume_dual)
    assert torch.equal(softmax(features, iters=4, warm_start=duals, **prior), expected.u)
    # The output of a call with more priors serves one with fewer.
    assert softmax(features, iters=4, warm_start=first, tv=TV(0.4)).isfinite().all()


@pytest.mark.parametrize("mode", ["implicit", "last"])
def test_modes_of_backward(mode: str) -> None:
    given = tensors()
    features = given["features"].requires_grad_()
    more = dict(tol=1e-9, tv=TV(0.4), volume=Volume(given["volume"]))
    options = dict(implicit_iters=500, implicit_tol=1e-8) if mode == "implicit" else {}
    u = softmax(features, iters=3000, mode=mode, **options, **more)
    grad_u = torch.randn_like(u)
    u.backward(grad_u)
    keep = 3000 if mode == "implicit" else 0
    expected = segprior.softmax(features.detach(), iters=3000, checkpoint=keep, **more)
    limits = dict(tol=1e-8, max_iters=500) if mode == "implicit" else {}
    assert torch.equal(features.grad, expected.backward(grad_u, mode, ["features"], **limits).features)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits(dtype: torch.dtype) -> None:
    features = tensors()["features"].to(dtype).requires_grad_()
    eps = torch.tensor(0.7, requires_grad=True)
    u = softmax(features, eps, 5, tv=TV(torch.tensor(0.4, dtype=dtype)))
    lam = float(torch.tensor(0.4, dtype=dtype))
    expected = segprior.softmax(features.detach(), eps.detach().reshape(1), 5, tv=TV(lam))
    assert u.dtype == dtype and torch.equal(u, expected.u)
    u.backward(torch.ones_like(u) * torch.arange(3).view(1, 3, 1, 1))
    assert features.grad.dtype == dtype and eps.grad.dtype == torch.float32


def test_numbers_arrays_and_tensors_mean_the_same() -> None:
    given = tensors()
    numbers = softmax(given["features"], 0.7, 4, tv=TV(0.4), volume=Volume(given["volume"].tolist()))
    as_arrays = softmax(
        given["features"],
        given["eps"].numpy(),
        4,
        tv=TV(given["tv_lam"].reshape(1, 1)),
        volume=Volume(given["volume"]),
    )
    assert torch.equal(numbers, as_arrays)
    counts = Volume(given["volume"].to(torch.int64))
    assert torch.equal(
        softmax(given["features"], volume=counts), softmax(given["features"], volume=Volume(given["volume"]))
    )


def test_the_cache_keeps_nothing_of_what_may_change() -> None:
    features, checkpoint = torch.randn(1, 3, 4, 4, requires_grad=True), torch.tensor(2)
    softmax(features, checkpoint=checkpoint)
    checkpoint.zero_()
    with pytest.raises(InvalidValueError, match="checkpoint = 0"):
        softmax(features, checkpoint=checkpoint)


def test_steps_of_stars_as_numpy_numbers() -> None:
    features = torch.randn(1, 3, 4, 4)
    found, expected = (
        softmax(features, star=[Star(k, [1.0, 2.0], tau) for k in (0, 1)]) for tau in (np.array(0.1), 0.1)
    )
    assert torch.equal(found, expected)


def test_a_cached_call_follows_its_arguments() -> None:
    features = tensors()["features"]
    eps = torch.tensor(1.0)
    first = softmax(features, eps, 3)
    eps.fill_(0.5)
    assert torch.equal(softmax(features, eps, 3), softmax(features, 0.5, 3))
    assert not torch.equal(softmax(features, eps, 3), first)
    assert torch.equal(softmax(features, 1.0, 3), first)


@pytest.mark.parametrize("shape", [(0, 3, 6, 7), (B, 3, 0, 7)])
def test_empty(shape: tuple[int, ...]) -> None:
    features = torch.ones(shape, requires_grad=True)
    eps = torch.tensor(0.5, requires_grad=True)
    out = softmax_with_duals(features, eps, 5, tv=TV(0.4), volume=Volume([1.0, 1.0, 1.0]))
    out.u.sum().backward()
    assert out.u.shape == features.grad.shape == shape
    assert eps.grad == 0 and out.report.iterations.tolist() == [0] * shape[0]
    assert not out.volume_dual.any()


@pytest.mark.parametrize("shape", [(2, 3, 11), (1, 2, 4, 5, 6)])
def test_one_and_three_axes(shape: tuple[int, ...]) -> None:
    features = torch.randn(shape)
    steps = [1.0, 1.5, 2.0][: len(shape) - 2]
    found = softmax(features, 0.5, 6, tv=TV(0.3), spacing=steps)
    assert torch.equal(found, segprior.softmax(features, 0.5, 6, tv=TV(0.3), spacing=steps).u)
