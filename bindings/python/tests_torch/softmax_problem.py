"""Calls of the softmax with every prior, for the tests: names of arguments, and tensors for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import segprior
from segprior import TV, Star, ThresholdDynamics, Volume

B, I, H, W = 2, 3, 6, 7  # noqa: E741


def tensors(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """A tensor for every argument that has a derivative, all of them away from kinks of the iteration."""
    generator = torch.Generator().manual_seed(3)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    volume = torch.tensor([[10.0, 12.0, 20.0], [4.0, 30.0, 8.0]], dtype=dtype)
    return {
        "features": torch.randn(B, I, H, W, generator=generator, dtype=torch.float64).to(dtype),
        "eps": torch.tensor(0.7, dtype=dtype),
        "tv_lam": torch.tensor(0.4, dtype=dtype),
        "tv_tau": torch.tensor([0.2], dtype=dtype),
        "tv_edge": uniform(0.3, 1.2, B, H, W),
        "volume": volume,
        "volume_lower": 0.8 * volume,
        "volume_upper": 1.1 * volume,
        "td_lam": torch.tensor(0.3, dtype=dtype),
        "td_sigma": torch.tensor([[1.3]], dtype=dtype),
        "td_kernel": uniform(0.0, 0.1, 3, 3),
        "td_edge": uniform(0.3, 1.2, H, W),
        "center": torch.tensor([[2.2, 3.3], [2.7, 2.9]], dtype=dtype),
        "shared_center": torch.tensor([3.1, 1.4], dtype=dtype),
        "star_tau": torch.tensor(0.25, dtype=dtype),
        "shared_volume": torch.tensor([12.0, 14.0, 16.0], dtype=dtype),
    }


def _star(p: dict[str, Any], **more: Any) -> list[Star]:
    return [Star(1, p["center"], more.get("tau")), Star(2, p["shared_center"], more.get("tau"))]


#: name -> (the tensors that it uses besides the features, the arguments it makes of them)
CASES: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "plain": (("eps",), lambda p: dict(eps=p["eps"])),
    "tv": (
        ("eps", "tv_lam", "tv_tau", "tv_edge"),
        lambda p: dict(eps=p["eps"], tv=TV(p["tv_lam"], p["tv_tau"], p["tv_edge"]), spacing=(1.0, 1.5)),
    ),
    "tv volume": (
        ("tv_lam", "volume"),
        lambda p: dict(eps=0.7, init_eps=1.0, tv=TV(p["tv_lam"]), volume=Volume(p["volume"])),
    ),
    "shared volume": (("shared_volume",), lambda p: dict(volume=Volume(p["shared_volume"]))),
    "bounds": (
        ("volume_lower", "volume_upper"),
        lambda p: dict(eps=0.7, volume=Volume(lower=p["volume_lower"], upper=p["volume_upper"])),
    ),
    "td": (
        ("td_lam", "td_sigma", "td_edge"),
        lambda p: dict(td=ThresholdDynamics(p["td_lam"], 3, p["td_sigma"], edge=p["td_edge"])),
    ),
    "kernel": (("td_kernel",), lambda p: dict(td=ThresholdDynamics(0.3, kernel=p["td_kernel"]))),
    "star": (
        ("center", "shared_center", "star_tau"),
        lambda p: dict(eps=0.7, star=_star(p, tau=p["star_tau"])),
    ),
    "all": (
        ("eps", "tv_lam", "tv_edge", "volume", "td_lam", "center", "shared_center"),
        lambda p: dict(
            eps=p["eps"],
            tv=TV(p["tv_lam"], edge=p["tv_edge"]),
            td=ThresholdDynamics(p["td_lam"], 3, 1.3),
            volume=Volume(p["volume"]),
            star=_star(p),
            mask=mask(),
        ),
    ),
}


def mask() -> Tensor:
    valid = torch.ones(H, W, dtype=torch.bool)
    valid[0, :2] = valid[4, 5] = False
    return valid


def arguments(case: str, given: dict[str, Any]) -> dict[str, Any]:
    return CASES[case][1](given)


def reference(case: str, given: dict[str, Tensor], iters: int, **more: Any) -> segprior.Result:
    """The same call of `segprior.softmax`, which takes arrays of one element as [1]."""
    plain = {name: t.detach().reshape(1) if t.numel() == 1 else t.detach() for name, t in given.items()}
    return segprior.softmax(plain["features"], iters=iters, **arguments(case, plain), **more)
