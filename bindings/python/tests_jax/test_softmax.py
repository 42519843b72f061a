"""The softmax: the same numbers as `segprior.softmax`, bit for bit, forward and backward; golden vectors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from conftest import Golden, golden_names, same
from softmax_problem import VARIANTS, arguments, arrays

import segprior
import segprior.jax as sj


def device(a: dict[str, Any]) -> dict[str, Any]:
    return {name: jnp.asarray(array) for name, array in a.items()}


def loss(a: dict[str, Any], variant: str, grad_u: Any, **more: Any) -> Any:
    u = sj.softmax(a["features"], **arguments(a, variant), **more)
    return jnp.sum(u * grad_u)


FORWARD = [
    *((variant, dtype) for variant in VARIANTS for dtype in (np.float32, np.float64)),
    *((variant, dtype) for variant in ("all", "mask") for dtype in (np.float16, ml_dtypes.bfloat16)),
]


@pytest.mark.parametrize("variant, dtype", FORWARD)
def test_forward(variant: str, dtype: Any) -> None:
    a = arrays(variant, dtype)
    expected = segprior.softmax(a["features"], **arguments(a, variant))
    b = device(a)
    found = sj.softmax_with_duals(b["features"], **arguments(b, variant))
    same(found.u, expected.u)
    for name in ("tv_dual", "volume_dual", "star_dual"):
        dual = getattr(expected, name)
        assert (getattr(found, name) is None) == (dual is None)
        if dual is not None:
            same(getattr(found, name), dual)
    same(found.report.iterations, expected.info.iterations.astype(np.int32))
    same(found.report.status, np.array(expected.info.status, np.int32))
    same(found.report.residual, expected.info.residual)
    same(sj.softmax(b["features"], **arguments(b, variant)), expected.u)


GRADIENTS = [
    *((variant, dtype, "unrolled") for variant in VARIANTS for dtype in (np.float32, np.float64)),
    *(("all", dtype, "unrolled") for dtype in (np.float16, ml_dtypes.bfloat16)),
    *(("all", dtype, "last") for dtype in (np.float64, ml_dtypes.bfloat16)),
    *((variant, dtype, "implicit") for variant in ("tv", "limit") for dtype in (np.float32, np.float64)),
]


@pytest.mark.parametrize("variant, dtype, mode", GRADIENTS)
def test_gradients(variant: str, dtype: Any, mode: str) -> None:
    a = arrays(variant, dtype)
    grad_u = np.random.default_rng(1).normal(size=a["features"].shape).astype(dtype)
    names = [name for name in a if name not in ("mask", "tv_dual", "volume_dual")]
    if mode != "unrolled":
        names = ["features"] if mode == "last" else [n for n in names if n not in ("tv_tau", "star_tau")]
    b = device(a)
    found = jax.jit(
        jax.grad(lambda wanted: loss({**b, **wanted}, variant, grad_u, mode=mode)),
    )({name: b[name] for name in names})
    checkpoint = {"unrolled": None, "implicit": arguments(a, variant)["iters"], "last": 0}[mode]
    result = segprior.softmax(a["features"], **arguments(a, variant), checkpoint=checkpoint)
    expected = result.backward(grad_u, mode=mode)
    for name in names:
        if name.startswith("center"):
            gradient = expected.star_center[int(name[-1])]
        else:
            gradient = getattr(expected, name)
        if len(np.shape(found[name])) == 1 and name in ("center0", "volume_lower", "volume_upper"):
            # Sums over the batch, which XLA may take in another order.
            np.testing.assert_allclose(found[name], gradient, rtol=1e-5 if dtype != np.float64 else 1e-13)
        else:
            same(found[name], gradient)


QUOTIENTS = ("tv_edge", "bounds", "td", "td_kernel", "star", "all", "mask", "spacing")


@pytest.mark.parametrize("variant", QUOTIENTS)
def test_difference_quotients(variant: str) -> None:
    """Every gradient in a random direction. The step of 1e-6 leaves about 1e-9 of the quotient's digits
    wrong, unless a projection of the iteration changes sides within it, which these problems do not."""
    random = np.random.default_rng(2)
    a = device(arrays(variant))
    grad_u = random.normal(size=a["features"].shape)
    names = [name for name in a if name != "mask"]
    gradient = jax.grad(lambda wanted: loss({**a, **wanted}, variant, grad_u))({n: a[n] for n in names})
    for name in names:
        direction = random.normal(size=a[name].shape)
        ahead, behind = (
            loss({**a, name: a[name] + step * direction}, variant, grad_u) for step in (1e-6, -1e-6)
        )
        quotient = (ahead - behind) / 2e-6
        assert abs(jnp.sum(gradient[name] * direction) - quotient) < 1e-6 * max(1, abs(quotient)), name


@pytest.mark.parametrize("name", golden_names("softmax"))
def test_golden(name: str) -> None:
    """As tests/test_golden.py, with its tolerances: 50 epsilons forward, eight times that backward."""
    case = Golden(name)
    given = {key: case[key] for key in ("o", "tv_edge", "volume", "volume_lower", "volume_upper", "td_edge")}
    given = {key: jnp.asarray(array) for key, array in given.items() if array is not None}

    def u(given: dict[str, Any]) -> Any:
        tv = volume = td = None
        if "tv" in case.words:
            tv = sj.TV(case.number("tv_lam"), case.number("tv_tau"), given.get("tv_edge"))
        if "volume" in given:
            volume = sj.Volume(given["volume"])
        elif "volume_lower" in given:
            volume = sj.Volume(lower=given["volume_lower"], upper=given["volume_upper"])
        if "td_lam" in case.words:
            td = sj.ThresholdDynamics(
                case.number("td_lam"), kernel=case["td_kernel"], edge=given.get("td_edge")
            )
        spacing = [float(word) for word in case.words.get("spacing", [])] or None
        star = [sj.Star(cls, case[f"star_center_{cls}"], tau) for cls, tau in case.stars]
        return sj.softmax(
            given["o"],
            case.number("eps"),
            int(case.number("iterations") or 0),
            case.number("init_eps"),
            tv=tv,
            volume=volume,
            td=td,
            star=star,
            spacing=spacing,
        )

    found, pull = jax.vjp(u, given)
    (gradients,) = pull(jnp.asarray(case["grad_u"]))
    tolerance = 50 * np.finfo(np.float64).eps
    assert np.abs(found - case["u"]).max() <= tolerance
    for key, gradient in gradients.items():
        expected = case[f"grad_{key}"]
        assert np.abs(gradient - expected).max() <= 8 * tolerance * max(1, np.abs(expected).max()), key


def test_numbers_and_sequences() -> None:
    """Numbers are constants of the program, sequences become arrays: the same result."""
    a = arrays("tv")
    volume = [12.0, 14.0, 16.0]
    priors = {"tv": segprior.TV(0.4, edge=np.ones(a["features"].shape[2:]).tolist())}
    found = sj.softmax(a["features"], 0.6, 6, **priors, volume=segprior.Volume(volume))
    array = segprior.TV(0.4, edge=np.ones(a["features"].shape[2:]))
    same(found, segprior.softmax(a["features"], 0.6, 6, tv=array, volume=segprior.Volume(volume)).u)


def test_warm_start_from_output() -> None:
    a = device(arrays("all"))
    first = sj.softmax_with_duals(a["features"], **arguments(a, "all"))
    priors = {key: value for key, value in arguments(a, "all").items() if key != "td"}
    again = sj.softmax_with_duals(a["features"], warm_start=first, **priors)
    by_hand = sj.softmax(a["features"], warm_start=tuple(first[1:4]), **priors)
    same(again.u, by_hand)
    assert not np.array_equal(again.u, first.u)
    # A constant, also where it depends on what is being differentiated.
    gradient = jax.grad(
        lambda s: sj.softmax(a["features"], warm_start=(s * first.tv_dual, None), **priors)[0, 0, 0, 0]
    )
    assert gradient(1.0) == 0


def test_duals_are_constants() -> None:
    a = device(arrays("all"))
    gradient = jax.grad(lambda f: jnp.sum(sj.softmax_with_duals(f, **arguments(a, "all")).tv_dual))
    assert not np.any(gradient(a["features"]))


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4)])
def test_empty(shape: tuple[int, ...]) -> None:
    features = jnp.zeros(shape, jnp.float32)
    found, pull = jax.vjp(lambda f, eps: sj.softmax(f, eps, tv=sj.TV()), features, jnp.float32(0.5))
    assert found.shape == shape
    gradients = pull(found)
    assert gradients[0].shape == shape and gradients[1] == 0


def test_report_of_failed_images() -> None:
    features = np.zeros((3, 2, 4, 4), np.float32)
    features[1, 0, 0, 0] = np.nan
    found = sj.softmax_with_duals(features, tv=sj.TV())
    assert [sj.Status(int(status)) for status in found.report.status] == [
        *(sj.Status.ITERATION_CAP, sj.Status.NONFINITE_INPUT, sj.Status.ITERATION_CAP),
    ]
    assert np.isnan(found.u[1]).all() and np.isnan(found.report.residual[1])
    assert np.isfinite(found.u[::2]).all()


def test_without_64_bits() -> None:
    """Parameters and residuals become float32; the residual's bits are read without a float64."""
    # jax < 0.8 has it elsewhere.
    with jax.enable_x64(False) if hasattr(jax, "enable_x64") else jax.experimental.disable_x64():
        a = arrays("tv")
        found = sj.softmax_with_duals(a["features"], **arguments(a, "tv"))
        expected = segprior.softmax(*[np.float32(a["features"])], **arguments(arrays("tv", np.float32), "tv"))
        same(found.u, expected.u)
        residual = np.asarray(found.report.residual)
        assert residual.dtype == np.float32
        np.testing.assert_allclose(residual, expected.info.residual, rtol=1e-7)
        bad = sj.softmax_with_duals(np.full((1, 2, 3), np.inf, np.float32), tv=sj.TV())
        assert np.isnan(bad.report.residual[0])
