"""Softmax calls with every prior: `arguments` makes those of one, for NumPy arrays and for JAX's alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from segprior import TV, Star, ThresholdDynamics, Volume

SHAPE = (2, 3, 7, 6)
VARIANTS = (
    *("plain", "tv", "tv_edge", "volume", "bounds", "td", "td_kernel", "star", "all", "mask", "spacing"),
    *("limit", "warm"),
)


def arrays(variant: str, dtype: Any = np.float64, shape: tuple[int, ...] = SHAPE) -> dict[str, Any]:
    """The array arguments of a variant by the C library's names, "features" among them."""
    random = np.random.default_rng(5)
    batch, classes, *spatial = shape
    real = np.float64 if dtype == np.float64 else np.float32
    voxels = float(np.prod(spatial))

    def uniform(low: float, high: float, *extents: int) -> Any:
        return random.uniform(low, high, extents).astype(real)

    found = {"features": random.normal(size=shape).astype(dtype), "eps": np.array([0.6], real)}
    if variant in ("tv", "tv_edge", "all", "mask", "spacing", "limit", "warm"):
        found.update(tv_lam=np.array([0.4], real), tv_tau=np.array([0.12], real))
    if variant in ("tv_edge", "all"):
        found["tv_edge"] = uniform(0.3, 1.2, batch, *spatial)
    if variant in ("volume", "all", "mask", "limit", "warm"):
        share = uniform(0.2, 1, batch, classes)
        found["volume"] = (voxels * share / share.sum(1, keepdims=True)).astype(real)
    if variant == "bounds":
        found["volume_lower"] = uniform(0.36, 0.4, classes) * real(voxels)
        found["volume_lower"][0] = 0.1 * voxels
        found["volume_upper"] = found["volume_lower"] + real(0.3 * voxels)
    if variant in ("td", "td_kernel", "all"):
        found["td_lam"] = np.array([0.3], real)
    if variant in ("td", "all"):
        found["td_sigma"] = np.array([1.5], real)
    if variant == "td_kernel":
        found["td_kernel"] = uniform(0.0, 0.1, 3, 5)
        found["td_edge"] = uniform(0.3, 1.2, *spatial)
    if variant in ("star", "all"):
        found["center0"] = uniform(1.2, 4.8, len(spatial))
        found["center1"] = uniform(1.2, 4.8, batch, len(spatial))
        found["star_tau"] = np.array([0.15, 0.1], real)
    if variant == "mask":
        found["mask"] = (random.uniform(size=(1, *spatial)) < 0.8).astype(np.uint8)
    if variant == "warm":
        found["tv_dual"] = uniform(-0.2, 0.2, batch, classes, len(spatial), *spatial)
        found["volume_dual"] = uniform(-0.2, 0.2, batch, classes)
    return found


def arguments(a: dict[str, Any], variant: str) -> dict[str, Any]:
    """Keyword arguments of `softmax` from the arrays of `arrays`, of any framework."""
    made: dict[str, Any] = {"iters": 6, "eps": a["eps"]}
    if "tv_lam" in a:
        made["tv"] = TV(a["tv_lam"], a["tv_tau"], a.get("tv_edge"))
    if "volume" in a:
        made["volume"] = Volume(a["volume"])
    if "volume_lower" in a:
        made["volume"] = Volume(lower=a["volume_lower"], upper=a["volume_upper"])
    if "td_lam" in a:
        size, sigma = 5, a.get("td_sigma", 1.0)
        made["td"] = ThresholdDynamics(a["td_lam"], size, sigma, a.get("td_kernel"), a.get("td_edge"))
    if "center0" in a:
        taus = a["star_tau"]
        made["star"] = [Star(2, a["center0"], taus[:1]), Star(0, a["center1"], taus[1:])]
    if "mask" in a:
        made["mask"] = a["mask"]
    if variant == "spacing":
        made["spacing"] = (0.8, 1.3)
    if variant == "limit":
        made.update(tol=1e-9, iters=4000)
    if variant == "warm":
        made["warm_start"] = (a["tv_dual"], a["volume_dual"])
    return made
