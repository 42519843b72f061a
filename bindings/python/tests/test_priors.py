"""Threshold dynamics, star shapes and masks through `segprior.softmax`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import segprior
from segprior import TV, Star, ThresholdDynamics, Volume

KERNEL = np.array([[0.1, 0.2, 0.05], [0.1, 0.2, 0.1], [0.05, 0.1, 0.1]])  # not symmetric
CENTER = np.array([2.3, 3.6])


def test_floats_and_arrays_are_the_same(problem: dict[str, Any]) -> None:
    def solve(td: ThresholdDynamics, star: list[Star]) -> segprior.Result:
        return segprior.softmax(problem["features"], eps=0.5, td=td, star=star)

    one = solve(ThresholdDynamics(0.3, 5, 1.5), [Star(1, (2, 3.5), 0.2), Star(0, [1, 1], 0.3)])
    two = solve(
        ThresholdDynamics(np.array([0.3]), 5, np.array(1.5)),
        [Star(1, np.array([2, 3.5]), np.array([[0.2]])), Star(0, np.array([[1.0, 1.0]] * 2), 0.3)],
    )
    assert np.array_equal(one.u, two.u) and np.array_equal(one.star_dual, two.star_dual)
    single = [solve(ThresholdDynamics(), [Star(1, CENTER, tau)]).u for tau in (0.2, np.array([0.2]), None)]
    assert np.array_equal(single[0], single[1]) and not np.array_equal(single[0], single[2])
    axis = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.5**2))
    kernel = np.outer(axis, axis) / axis.sum() ** 2
    for given in (kernel, kernel.tolist(), np.stack([kernel] * 3)):
        three = solve(
            ThresholdDynamics(0.3, kernel=given), [Star(1, CENTER * 0 + (2, 3.5), 0.2), Star(0, (1, 1), 0.3)]
        )
        np.testing.assert_allclose(three.u, one.u, atol=1e-14)
    assert np.array_equal(
        solve(ThresholdDynamics(0.3), []).u,
        segprior.softmax(problem["features"], eps=0.5, td=ThresholdDynamics(0.3)).u,
    )


def test_default_star_step(problem: dict[str, Any]) -> None:
    """2 eps / sum h^-2 for one star class, half of it for several, half of that with TV."""
    features, spacing = problem["features"], (1.0, 2.0)
    step = 2 * 0.5 / (1 + 0.25)
    for stars, tv, tau in (([0], None, step), ([0, 2], None, step / 2), ([0], TV(0.2), step / 2)):
        common: dict[str, Any] = {"eps": 0.5, "tv": tv, "spacing": spacing}
        default = segprior.softmax(features, star=[Star(cls, CENTER) for cls in stars], **common)
        explicit = segprior.softmax(features, star=[Star(cls, CENTER, tau) for cls in stars], **common)
        np.testing.assert_allclose(default.u, explicit.u, rtol=1e-13)


def everything(p: dict[str, Any], **changed: Any) -> segprior.Result:
    p = {
        "eps": 0.5,
        "lam": 0.4,
        "td_lam": 0.3,
        "td_sigma": None,
        "td_kernel": None,
        "tau_0": 0.2,
        "tau_2": 0.1,
        **p,
    }
    p.update(changed)
    sigma = {} if p["td_sigma"] is None else {"sigma": p["td_sigma"]}
    return segprior.softmax(
        p["features"],
        eps=p["eps"],
        iters=12,
        tv=TV(p["lam"], 0.1, p["edge"]),
        volume=Volume(p["volume"]),
        td=ThresholdDynamics(p["td_lam"], 3, kernel=p["td_kernel"], edge=p["td_edge"], **sigma),
        star=[Star(0, p["center_0"], p["tau_0"]), Star(2, p["center_2"], p["tau_2"])],
        mask=p["mask"],
    )


@pytest.fixture
def full(problem: dict[str, Any]) -> dict[str, Any]:
    """All priors and a mask; arguments in the shapes that are shared by the batch."""
    random = np.random.default_rng(3)
    mask = np.ones((6, 7), bool)
    mask[0, :3] = mask[4, 5] = False
    return {
        **problem,
        "volume": np.array([8.0, 10.0, 20.0]),
        "td_edge": random.uniform(0.5, 1.5, size=(6, 7)),
        "center_0": CENTER,
        "center_2": np.array([[1.2, 1.7], [4.4, 2.1]]),
        "mask": mask,
    }


@pytest.mark.parametrize("kernel", ["gaussian", "shared", "per class"])
def test_gradients_against_central_differences(full: dict[str, Any], kernel: str) -> None:
    if kernel == "gaussian":
        full["td_sigma"] = 1.2
    else:
        full["td_kernel"] = KERNEL if kernel == "shared" else np.stack([KERNEL, KERNEL.T, 0.5 * KERNEL])
    g = everything(full).backward(full["grad_u"])
    assert g.td_edge.shape == (6, 7) and g.star_tau.shape == (2,)
    assert [center.shape for center in g.star_center] == [(2,), (2, 2)]
    assert (g.td_kernel is None) == (kernel == "gaussian") == (g.td_sigma is not None)
    found = {
        **{"features": g.features, "volume": g.volume, "edge": g.tv_edge, "td_edge": g.td_edge},
        **{"eps": g.eps[0], "lam": g.tv_lam[0], "td_lam": g.td_lam[0]},
        **{"tau_0": g.star_tau[0], "tau_2": g.star_tau[1]},
        **{"center_0": g.star_center[0], "center_2": g.star_center[1]},
    }
    found["td_sigma" if kernel == "gaussian" else "td_kernel"] = (
        g.td_sigma[0] if kernel == "gaussian" else g.td_kernel
    )
    given = {"eps": 0.5, "lam": 0.4, "td_lam": 0.3, "tau_0": 0.2, "tau_2": 0.1, **full}
    random, h = np.random.default_rng(0), 1e-6
    for name, gradient in found.items():
        direction = random.normal(size=np.shape(gradient))
        ends = [
            (everything(full, **{name: given[name] + step * direction}).u * full["grad_u"]).sum()
            for step in (h, -h)
        ]
        expected = (ends[0] - ends[1]) / (2 * h)
        assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-5, abs=1e-7), name


def test_star_shape() -> None:
    """At the limit u falls along every ray from the centre; without the prior it does not."""
    rows, columns = np.mgrid[:15, :15]
    ring = np.hypot(rows - 7, columns - 7)
    o = np.where((ring > 3) & (ring < 6), 1.0, -1.0)
    features = np.stack([-o, o])[None]
    offset = np.stack([7 - rows, 7 - columns]) / np.maximum(ring, 1e-9)

    def worst(u: np.ndarray) -> float:
        slope = np.zeros((2, 15, 15))
        slope[0, :-1], slope[1, :, :-1] = np.diff(u, axis=0), np.diff(u, axis=1)
        return float((slope * offset).sum(0).min())

    free = segprior.softmax(features, eps=0.5)
    r = segprior.softmax(features, eps=0.5, iters=20000, tol=1e-9, star=[Star(1, (7, 7))])
    assert r.info[0].status is segprior.Status.CONVERGED
    assert worst(free.u[0, 1]) < -0.5 and worst(r.u[0, 1]) > -1e-5
    assert (r.star_dual >= 0).all() and r.star_dual.shape == (1, 1, 15, 15)
    assert repr(r.backward(features)) == "Gradients(eps, features, star_center, star_tau)"


def test_warm_start_with_stars(problem: dict[str, Any]) -> None:
    def solve(iters: int, start: Any = None) -> segprior.Result:
        return segprior.softmax(
            *(problem["features"], 0.5, iters),
            tv=TV(0.3),
            volume=Volume(problem["volume"]),
            star=[Star(1, CENTER), Star(0, CENTER)],
            warm_start=start,
        )

    first, whole = solve(10), solve(20)
    for start in (first, (first.tv_dual, first.volume_dual, first.star_dual)):
        np.testing.assert_allclose(solve(10, start).u, whole.u, atol=1e-14)
    assert np.abs(solve(10, (first.tv_dual, first.volume_dual)).u - whole.u).max() > 1e-6
    # What the other call has no use for is left out.
    assert segprior.softmax(problem["features"], tv=TV(), warm_start=first).star_dual is None
    fewer = segprior.softmax(problem["features"], tv=TV())
    assert solve(3, fewer).star_dual.shape == (2, 2, 6, 7)


def test_a_mask_cuts(problem: dict[str, Any]) -> None:
    """Masked columns are as good as absent ones, whatever they hold; gradients there are 0."""
    features, grad_u = problem["features"].copy(), problem["grad_u"].copy()
    mask = np.ones((6, 7), np.uint8)
    mask[:, 5:] = 0
    features[..., 5:] = grad_u[..., 5:] = np.nan
    edge = problem["edge"].copy()
    edge[..., 5:] = -1
    td = ThresholdDynamics(0.3, 5, 1.5)

    def solve(o: np.ndarray, e: np.ndarray, **more: Any) -> segprior.Result:
        star = [Star(2, CENTER)]
        return segprior.softmax(
            o, 0.5, tv=TV(0.4, edge=e), td=td, star=star, volume=Volume([8, 10, 12]), **more
        )

    small = solve(np.ascontiguousarray(features[..., :5]), np.ascontiguousarray(edge[..., :5]))
    expected = small.backward(np.ascontiguousarray(grad_u[..., :5]))
    for shape in ((6, 7), (1, 6, 7), (2, 6, 7)):
        given = np.broadcast_to(mask, shape).copy()
        for kind in (given, given.astype(bool), 7 * given):
            r = solve(features, edge, mask=kind)
            np.testing.assert_allclose(r.u[..., :5], small.u, atol=1e-14)
            assert (r.u[..., 5:] == 0).all()
            assert set(r.info.status) == {segprior.Status.ITERATION_CAP}
    g = r.backward(grad_u)
    np.testing.assert_allclose(g.features[..., :5], expected.features, atol=1e-13)
    np.testing.assert_allclose(g.tv_edge[..., :5], expected.tv_edge, atol=1e-13)
    assert (g.features[..., 5:] == 0).all() and (g.tv_edge[..., 5:] == 0).all()
    for name in ("eps", "tv_lam", "td_lam", "td_sigma", "volume"):
        np.testing.assert_allclose(getattr(g, name), getattr(expected, name), atol=1e-12)
    np.testing.assert_allclose(g.star_center[0], expected.star_center[0], atol=1e-12)
    last = r.backward(grad_u, mode="last").features
    assert (last[..., 5:] == 0).all() and np.isfinite(last).all()


def test_everything_masked(problem: dict[str, Any]) -> None:
    mask = np.ones((2, 6, 7), bool)
    mask[0] = False
    r = segprior.softmax(problem["features"], tv=TV(), td=ThresholdDynamics(), mask=mask)
    g = r.backward(problem["grad_u"])
    assert (r.u[0] == 0).all() and (g.features[0] == 0).all()
    assert np.isfinite(r.u).all() and np.isfinite(g.features).all() and np.isfinite(g.td_lam).all()


def test_empty_with_all_priors() -> None:
    arguments: dict[str, Any] = {"td": ThresholdDynamics(kernel=KERNEL), "star": [Star(1, CENTER)]}
    r = segprior.softmax(np.empty((0, 3, 4, 5)), mask=np.ones((4, 5), bool), **arguments)
    g = r.backward(np.empty((0, 3, 4, 5)))
    assert r.u.shape == (0, 3, 4, 5) and r.star_dual.shape == (0, 1, 4, 5)
    assert (g.td_kernel == 0).all() and g.td_kernel.shape == (3, 3) and g.star_tau.tolist() == [0]
    assert g.star_center[0].tolist() == [0, 0]


def test_path_is_no_matter_on_the_cpu(problem: dict[str, Any]) -> None:
    found = [
        segprior.softmax(problem["features"], tv=TV(), path=p).u for p in ("auto", "streaming", "on_chip")
    ]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_a_failed_image(problem: dict[str, Any]) -> None:
    """Parameters on the device that are outside their domain: reported per image, never an exception."""
    center = np.array([[1.0, 1.0], [np.nan, 1.0]])
    r = segprior.softmax(problem["features"], star=[Star(0, center)])
    assert [i.status.name for i in r.info] == ["ITERATION_CAP", "NONFINITE_INPUT"]
    assert np.isfinite(r.u[0]).all() and np.isnan(r.u[1]).all()
    for td in (ThresholdDynamics(np.array([-1.0])), ThresholdDynamics(1.0, 3, np.array([0.0]))):
        r = segprior.softmax(problem["features"], td=td)
        assert set(r.info.status) == {segprior.Status.INVALID_PARAMETER}
