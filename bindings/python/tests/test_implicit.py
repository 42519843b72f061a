"""Mode "implicit": the derivative of the limit, against difference quotients of converged runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import segprior
from segprior import TV, Star, Status, ThresholdDynamics, Volume


@pytest.fixture
def tiny() -> dict[str, Any]:
    random = np.random.default_rng(5)
    return {
        "features": random.normal(size=(2, 3, 4, 5)),
        "grad_u": random.normal(size=(2, 3, 4, 5)),
        "edge": random.uniform(0.6, 1.4, size=(4, 5)),
        "volume": np.array([[5.0, 7.0, 8.0], [4.0, 6.0, 10.0]]),
        "eps": 0.7,
        "lam": 0.25,
    }


def converged(p: dict[str, Any], **changed: Any) -> segprior.Result:
    p = {**p, **changed}
    more: dict[str, Any] = {}
    if "td_lam" in p:
        more["td"] = ThresholdDynamics(p["td_lam"], 3, p["td_sigma"], edge=p["td_edge"])
    if "center" in p:
        more["star"] = [Star(1, p["center"])]
    return segprior.softmax(
        p["features"],
        p["eps"],
        iters=40000,
        tol=1e-13,
        tv=TV(p["lam"], edge=p["edge"]),
        volume=Volume(p["volume"]),
        checkpoint=40000,
        **more,
    )


def compare(p: dict[str, Any], found: dict[str, Any], h: float = 1e-4) -> None:
    """Gradients times random directions; volumes along directions that keep their sum."""
    random = np.random.default_rng(0)
    for name, gradient in found.items():
        direction = random.normal(size=np.shape(gradient))
        if name == "volume":
            direction -= direction.mean(1, keepdims=True)
        ends = [
            (converged(p, **{name: p[name] + step * direction}).u * p["grad_u"]).sum() for step in (h, -h)
        ]
        expected = (ends[0] - ends[1]) / (2 * h)
        assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-3, abs=1e-5), name


def test_tv_and_volume(tiny: dict[str, Any]) -> None:
    r = converged(tiny)
    assert set(r.info.status) == {Status.CONVERGED}
    g = r.backward(tiny["grad_u"], mode="implicit", tol=1e-10)
    assert set(g.info.status) == {Status.CONVERGED}
    assert (g.info.iterations > 0).all() and (g.info.residual <= 1e-10).all()
    assert repr(g) == "Gradients(eps, features, tv_edge, tv_lam, volume)"
    compare(
        tiny,
        {
            **{"features": g.features, "eps": g.eps[0], "lam": g.tv_lam[0]},
            **{"edge": g.tv_edge, "volume": g.volume},
        },
    )


def test_all_priors(tiny: dict[str, Any]) -> None:
    tiny.update(
        td_lam=0.2, td_sigma=1.1, td_edge=tiny["edge"].T.reshape(4, 5).copy(), center=np.array([1.3, 2.2])
    )
    r = converged(tiny)
    assert set(r.info.status) == {Status.CONVERGED}
    g = r.backward(tiny["grad_u"], mode="implicit", tol=1e-10, max_iters=20000)
    assert set(g.info.status) == {Status.CONVERGED}
    assert g.star_tau is None and g.tv_tau is None
    compare(
        tiny,
        {
            **{"features": g.features, "eps": g.eps[0], "lam": g.tv_lam[0], "edge": g.tv_edge},
            **{"volume": g.volume, "td_lam": g.td_lam[0], "td_sigma": g.td_sigma[0]},
            **{"td_edge": g.td_edge, "center": g.star_center[0]},
        },
    )


def test_info(tiny: dict[str, Any]) -> None:
    r = converged(tiny)
    g = r.backward(tiny["grad_u"], mode="implicit", max_iters=3)
    assert [i.status for i in g.info] == [Status.ITERATION_CAP] * 2 and g.info.iterations.tolist() == [3, 3]
    assert (g.info.residual > 1e-6).all() and g.info is g.info
    assert r.backward(tiny["grad_u"]).info is None
    zero = r.backward(np.zeros_like(tiny["grad_u"]), mode="implicit")
    assert zero.info.iterations.tolist() == [0, 0] and (zero.features == 0).all()
    assert [i.status for i in zero.info] == [Status.CONVERGED] * 2
    features = tiny["features"].copy()
    features[0, 0, 0, 0] = np.inf
    g = converged(tiny, features=features).backward(tiny["grad_u"], mode="implicit", wanted=["features"])
    assert [i.status for i in g.info] == [Status.NONFINITE_INPUT, Status.CONVERGED]
    assert np.isnan(g.features[0]).all() and np.isfinite(g.features[1]).all() and g.eps is None


def test_any_checkpoint_will_do(tiny: dict[str, Any]) -> None:
    def gradient(checkpoint: int | None) -> np.ndarray:
        r = segprior.softmax(tiny["features"], 0.7, 500, tv=TV(0.25), tol=1e-9, checkpoint=checkpoint)
        found: np.ndarray = r.backward(tiny["grad_u"], mode="implicit").features
        return found

    for checkpoint in (1, 7, 500, 1000):
        assert np.array_equal(gradient(checkpoint), gradient(None))


def test_no_double_backward() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    r = segprior.softmax(torch.zeros(1, 2, 3, 4), tv=TV())
    grad_u = torch.ones(1, 2, 3, 4, requires_grad=True)
    for mode in ("unrolled", "implicit", "last"):
        with pytest.raises(segprior.NotSupportedError, match="first derivatives only"):
            r.backward(grad_u, mode=mode)
    assert r.backward(grad_u.detach()).features.shape == (1, 2, 3, 4)
