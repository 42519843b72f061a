"""16-bit features: computed in float32, rounded once on the way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import segprior
from segprior import TV, Star, ThresholdDynamics, Volume


def solve(features: Any, grad_u: Any, **more: Any) -> tuple[segprior.Result, segprior.Gradients]:
    r = segprior.softmax(
        features,
        eps=0.5,
        tv=TV(0.4),
        td=ThresholdDynamics(0.3, 3, 1.0),
        star=[Star(1, (2, 3))],
        volume=Volume([10, 12, 20]),
        **more,
    )
    return r, r.backward(grad_u)


def check(kind: Any, problem: dict[str, Any]) -> None:
    features, grad_u = problem["features"].astype(kind), problem["grad_u"].astype(kind)
    r, g = solve(features, grad_u)
    r32, g32 = solve(features.astype(np.float32), grad_u.astype(np.float32))
    assert r.u.dtype == g.features.dtype == kind
    assert np.array_equal(r.u, r32.u.astype(kind))
    assert np.array_equal(g.features, g32.features.astype(kind))
    for name in ("eps", "tv_lam", "td_lam", "td_sigma", "volume", "star_tau"):
        found = getattr(g, name)
        assert found.dtype == np.float32 and np.array_equal(found, getattr(g32, name)), name
    assert r.tv_dual.dtype == r.star_dual.dtype == r.volume_dual.dtype == np.float32
    last, last32 = (
        one.backward(two, mode="last").features for one, two in ((r, grad_u), (r32, grad_u.astype("f4")))
    )
    # From the rounded u, not from the one that float32 has.
    np.testing.assert_allclose(last.astype("f4"), last32, atol=0.02)


def test_float16(problem: dict[str, Any]) -> None:
    check(np.dtype(np.float16), problem)


def test_bfloat16(problem: dict[str, Any]) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    check(np.dtype(ml_dtypes.bfloat16), problem)


def test_torch_bfloat16(problem: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for kind in (torch.bfloat16, torch.float16):
        features, grad_u = (torch.tensor(problem[name], dtype=kind) for name in ("features", "grad_u"))
        mask = torch.ones(6, 7, dtype=torch.bool)
        mask[0] = False
        features[:, :, 0] = float("nan")
        r, g = solve(features, grad_u, mask=mask)
        r32, g32 = solve(features.float(), grad_u.float(), mask=mask)
        assert r.u.dtype == g.features.dtype == kind and g.eps.dtype == torch.float32
        assert torch.equal(r.u, r32.u.to(kind)) and torch.equal(g.features, g32.features.to(kind))


def test_jax_bfloat16(problem: dict[str, Any]) -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    with jax.default_device(jax.devices("cpu")[0]):
        features, grad_u = (jax.numpy.asarray(problem[n], jax.numpy.bfloat16) for n in ("features", "grad_u"))
        r, g = solve(features, grad_u)
        assert r.u.dtype == g.features.dtype == jax.numpy.bfloat16 and isinstance(r.u, jax.Array)
        r32, _ = solve(features.astype(jax.numpy.float32), grad_u.astype(jax.numpy.float32))
        assert (r.u == r32.u.astype(jax.numpy.bfloat16)).all()


def test_bfloat16_without_ml_dtypes(problem: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """An array of another framework whose results NumPy could not hold."""
    import sys

    from test_arrays import Edited

    given = Edited(np.zeros((1, 2, 3, 4), np.float16))
    given.dl.code = 4
    monkeypatch.delitem(sys.modules, "ml_dtypes", raising=False)
    with pytest.raises(segprior.InvalidTypeError, match="bfloat16 need `import ml_dtypes`"):
        segprior.softmax(given)


def test_parameters_of_16_bit_features_are_float32(problem: dict[str, Any]) -> None:
    features = problem["features"].astype(np.float16)
    edge = problem["edge"]
    segprior.softmax(features, tv=TV(edge=edge.astype(np.float32)))
    with pytest.raises(segprior.InvalidTypeError, match="tv_edge has dtype float16; it must be float32 or"):
        segprior.softmax(features, tv=TV(edge=edge.astype(np.float16)))
    with pytest.raises(segprior.InvalidTypeError, match="tv_edge: dtype = float64 must be dtype float32"):
        segprior.softmax(features, tv=TV(edge=edge))
    with pytest.raises(segprior.InvalidTypeError, match="center has dtype float64; it must be float32"):
        segprior.softmax(features, star=[Star(0, np.ones(2))])
    with pytest.raises(
        segprior.InvalidTypeError, match="grad_u: dtype = float32 must be the dtype of features, float16"
    ):
        segprior.softmax(features).backward(np.zeros_like(features, np.float32))


def test_compact_saved(problem: dict[str, Any]) -> None:
    """Half the memory between forward and backward; u is untouched, gradients a little off."""
    features, grad_u = problem["features"].astype(np.float32), problem["grad_u"].astype(np.float32)
    r, g = solve(features, grad_u, iters=100)
    compact, near = solve(features, grad_u, iters=100, compact_saved=True)
    assert np.array_equal(r.u, compact.u)
    assert compact._saved[2] < 0.7 * r._saved[2]
    np.testing.assert_allclose(near.features, g.features, atol=2e-3)
    with pytest.raises(segprior.InvalidTypeError, match="compact_saved is 'yes'"):
        segprior.softmax(features, compact_saved="yes")
    with pytest.raises(segprior.SegpriorError, match="compact_saved"):
        solve(features, grad_u, compact_saved=True, warm_start=r)
