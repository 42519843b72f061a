"""The named methods: each equals the explicit call; what emtv finds in synthetic pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import segprior
from segprior import TV, Star, ThresholdDynamics, Volume, presets

# One thread: these pictures are too small to share out.
ONE: dict[str, Any] = {"channel_axis": -1, "threads": 1}


def test_presets_equal_the_explicit_call(problem: dict[str, Any]) -> None:
    o, edge, v = problem["features"], problem["edge"], problem["volume"]
    star = [Star(1, (2, 3))]
    td, weighted = ThresholdDynamics(1.0, 7, 5.0), ThresholdDynamics(0.5, 3, 1.5, edge=edge)
    pairs = [
        (presets.tv_softmax(o), segprior.softmax(o, 0.5, 30, tv=TV(1.0))),
        (presets.tv_softmax(o, 1, 0.3, 7, edge=edge), segprior.softmax(o, 1, 7, tv=TV(0.3, edge=edge))),
        (presets.vptv(o, v), segprior.softmax(o, 0.5, 30, tv=TV(1.0), volume=Volume(v))),
        (
            presets.vptv(o, Volume(upper=v), 0.01, 0.2, 90, tol=1e-3),
            segprior.softmax(o, 0.01, 90, tol=1e-3, tv=TV(0.2), volume=Volume(upper=v)),
        ),
        (presets.std(o), segprior.softmax(o, 1.0, 10, init_eps=1.0, td=td)),
        (
            presets.std(o, 0.2, 0.5, 4, size=3, sigma=1.5, edge=edge, init_eps=0.3),
            segprior.softmax(o, 0.2, 4, init_eps=0.3, td=weighted),
        ),
        (presets.vp_std(o, v), segprior.softmax(o, 1.0, 10, init_eps=1.0, td=td, volume=Volume(v))),
        (presets.vp_std(o, v, eps=0.3).u, presets.std(o, 0.3, volume=Volume(v)).u),
        (
            presets.ss_std(o, star),
            segprior.softmax(o, 0.1, 50, init_eps=1.0, td=ThresholdDynamics(0.75, 7, 5.0), star=star),
        ),
        # The step of the paper: eps.
        (presets.ss_std(o, star).u, presets.ss_std(o, [Star(1, (2, 3), 0.1)]).u),
    ]
    for found, expected in pairs:
        found, expected = (getattr(r, "u", r) for r in (found, expected))
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)
    assert presets.vptv(o, v).backward(problem["grad_u"]).volume.shape == (2, 3)


@pytest.fixture
def squares() -> tuple[np.ndarray, np.ndarray]:
    """Two classes of equal mean and unequal spread in one channel, overlapping in the other; the truth."""
    random = np.random.default_rng(2)
    truth = np.zeros((40, 50), bool)
    truth[8:30, 10:35] = True
    image = np.empty((40, 50, 2))
    image[..., 0] = 0.5 + np.where(truth, 0.05, 0.2) * random.normal(size=truth.shape)
    image[..., 1] = np.where(truth, 0.65, 0.35) + 0.1 * random.normal(size=truth.shape)
    return image, truth


def test_emtv(squares: tuple[np.ndarray, np.ndarray]) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    image, truth = squares

    def accuracy(found: presets.EMTV) -> float:
        right = ((found.u[1] > found.u[0]) == truth).mean()
        return float(max(right, 1 - right))

    found = presets.emtv(image, 2, **ONE)
    assert found.u.shape == (2, 40, 50) and found.change < 1e-3 and 1 < found.sweeps < 50
    assert accuracy(found) > 0.995 and accuracy(presets.emtv(image, 2, lam=0.0, **ONE)) < 0.98
    inner = int(found.u[1][15, 20] > 0.5)
    np.testing.assert_allclose(found.mixture.means[inner], [0.5, 0.65], atol=0.02)
    np.testing.assert_allclose(np.sqrt(found.mixture.covariances[inner, 0, 0]), 0.05, atol=0.01)
    assert found.mixture.weights.sum() == pytest.approx(1)
    # Sweeps go on from the last one's dual: few iterations in each lead to the same limit.
    short, long = (presets.emtv(image, 2, **ONE, iters=n, sweeps=500, tol=1e-5) for n in (2, 30))
    np.testing.assert_allclose(short.u, long.u, atol=1e-2)
    first = presets.emtv(np.moveaxis(image, -1, 0), 2, channel_axis=0, threads=1)
    assert np.array_equal(first.u, found.u)


def test_emtv_without_tv_is_em(squares: tuple[np.ndarray, np.ndarray]) -> None:
    """lam = 0: the mixture of EM, to its tolerance, by scikit-learn."""
    mixture = pytest.importorskip("sklearn.mixture", reason="scikit-learn is not installed")
    image, _ = squares
    found = presets.emtv(image, 2, lam=0.0, **ONE, iters=0, sweeps=2000, tol=1e-6)
    pixels = image.reshape(-1, 2)
    floor = 1e-4 * np.ptp(pixels) ** 2
    em = mixture.GaussianMixture(2, reg_covar=floor, tol=1e-12, max_iter=5000, means_init=found.mixture.means)
    em.fit(pixels)
    np.testing.assert_allclose(found.mixture.means, em.means_, atol=2e-3)
    np.testing.assert_allclose(found.mixture.covariances, em.covariances_, atol=2e-3)
    np.testing.assert_allclose(found.mixture.weights, em.weights_, atol=5e-3)


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_emtv_does_not_depend_on_the_unit_of_the_image(
    squares: tuple[np.ndarray, np.ndarray], unit: float
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    image, _ = squares
    found, scaled = presets.emtv(image, 2, **ONE), presets.emtv(image * unit, 2, **ONE)
    np.testing.assert_allclose(scaled.u, found.u, atol=1e-6)


def test_emtv_leaves_masked_pixels_out(squares: tuple[np.ndarray, np.ndarray]) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    image, _ = squares
    mask = np.ones((40, 50), bool)
    mask[:, 40:] = False
    spoiled = image.copy()
    spoiled[:, 40:] = np.nan
    whole = presets.emtv(np.ascontiguousarray(image[:, :40]), 2, **ONE)
    found = presets.emtv(spoiled, 2, **ONE, mask=mask)
    np.testing.assert_allclose(found.u[:, :, :40], whole.u, atol=1e-9)
    assert (found.u[:, :, 40:] == 0).all()
