"""Golden vectors through the Python interface: forward, duals and every gradient, in both dtypes.

The vectors are float64. Tolerances are relative to the largest value of each array (at least 1). Forward: 50
epsilons of the dtype (1e-14 and 6e-6), for sums over tens of classes and voxels in another order, up to 30 times
in a row. Backward: eight times that, since the adjoint divides by eps = 0.1 ... 1 on its way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import GOLDEN, Golden, golden_names

import segprior

FORWARD = {dtype: 50 * np.finfo(dtype).eps for dtype in (np.float64, np.float32)}
BACKWARD = {dtype: 8 * bound for dtype, bound in FORWARD.items()}


def test_golden_vectors_are_there() -> None:
    assert len(golden_names()) >= 10, GOLDEN


def run(case: Golden, dtype: Any, gaussian: bool = False, **more: Any) -> segprior.Result:
    """`gaussian`: threshold dynamics with size and sigma, not with the kernel that they make."""

    def array(name: str) -> Any:
        found = case[name]
        return None if found is None else found.astype(dtype)

    tv, volume, td = None, None, None
    if case.text("tv"):
        tv = segprior.TV(case.number("tv_lam"), case.number("tv_tau"), array("tv_edge"))
    if case.text("volume") == "equal":
        volume = segprior.Volume(array("volume"))
    elif case.text("volume") == "box":
        volume = segprior.Volume(lower=array("volume_lower"), upper=array("volume_upper"))
    if case.text("td_lam"):
        lam, size, sigma = (case.number(f"td_{name}") for name in ("lam", "size", "sigma"))
        kernel = None if gaussian else array("td_kernel")
        td = segprior.ThresholdDynamics(lam, int(size or 0), sigma, kernel, array("td_edge"))
    return segprior.softmax(
        array("o"),
        eps=case.number("eps"),
        iters=iterations(case),
        init_eps=case.number("init_eps"),
        spacing=case.numbers("spacing"),
        tv=tv,
        volume=volume,
        td=td,
        star=[segprior.Star(cls, array(f"star_center_{cls}"), tau) for cls, tau in case.stars],
        **more,
    )


def iterations(case: Golden) -> int:
    return int(case.number("iterations") or 0)


def close(found: Any, expected: Any, tolerance: float, what: str) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    error = float(np.abs(found - expected).max())
    assert error <= tolerance * scale, f"{what}: error {error:.3g}, allowed {tolerance * scale:.3g}"


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", golden_names())
def test_forward(name: str, dtype: Any) -> None:
    case = Golden(name)
    r = run(case, dtype)
    assert r.u.dtype == dtype
    close(r.u, case["u"], FORWARD[dtype], "u")
    stars = [case[f"q_star_{cls}"] for cls, _ in case.stars]
    duals = [
        *((r.tv_dual, case["q_tv"]), (r.volume_dual, case["f"])),
        (r.star_dual, np.stack(stars, 1) if stars else None),
    ]
    for found, expected in duals:
        assert (found is None) == (expected is None)
        if found is not None:
            close(found, expected, FORWARD[dtype], "dual")
    assert list(r.info.iterations) == [iterations(case)] * len(r.u)


@pytest.mark.parametrize("name", [name for name in golden_names() if Golden(name).text("td_lam")])
def test_gaussian(name: str) -> None:
    """The kernel made from size and sigma is the given one, so is everything that follows."""
    case = Golden(name)
    close(run(case, np.float64, gaussian=True).u, case["u"], FORWARD[np.float64], "u")
    g = run(case, np.float64, gaussian=True).backward(case["grad_u"])
    close(g.features, case["grad_o"], BACKWARD[np.float64], "features")
    assert g.td_kernel is None and g.td_sigma.shape == (1,)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("checkpoint", [None, 1])
@pytest.mark.parametrize("name", golden_names())
def test_backward_unrolled(name: str, checkpoint: int | None, dtype: Any) -> None:
    case = Golden(name)
    g = run(case, dtype, checkpoint=checkpoint).backward(case["grad_u"].astype(dtype))
    names = {"features": "grad_o"}
    scalars = ("eps", "tv_lam", "td_lam")
    arrays = ("tv_edge", "volume", "volume_lower", "volume_upper", "td_kernel", "td_edge")
    names.update({name: f"grad_{name}" for name in scalars + arrays})
    for attribute, file in names.items():
        found, expected = getattr(g, attribute), case[file]
        assert (found is None) == (expected is None), attribute
        if found is not None:
            assert found.shape == expected.shape and found.dtype == dtype
            close(found, expected, BACKWARD[dtype], attribute)


@pytest.mark.parametrize("name", golden_names())
def test_backward_last(name: str) -> None:
    case = Golden(name)
    g = run(case, np.float64, checkpoint=0).backward(case["grad_u"], mode="last")
    close(g.features, case["grad_o_quasi"], BACKWARD[np.float64], "features")
    assert g.eps is None and g.volume is None
