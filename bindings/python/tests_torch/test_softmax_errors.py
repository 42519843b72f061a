"""Errors of `segprior.torch.softmax` name the argument, its value and the rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segprior import TV, Star, ThresholdDynamics, Volume
from segprior.errors import InvalidTypeError, InvalidValueError, NotSupportedError
from segprior.torch import softmax, softmax_with_duals

F = torch.zeros(2, 3, 6, 7)

WRONG: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (InvalidTypeError, "features is ndarray; it must be a torch.Tensor", dict(features=F.numpy())),
    (InvalidTypeError, "features", dict(features=F.int())),
    (InvalidTypeError, "features has dtype torch.complex64", dict(features=F.to(torch.complex64))),
    (InvalidValueError, "features", dict(features=F[0, 0])),
    (InvalidValueError, r"features has shape \[3\]", dict(features=torch.ones(3), volume=Volume([1, 2, 3]))),
    (InvalidValueError, "eps = -1", dict(eps=-1.0)),
    (InvalidTypeError, "eps is 'x'", dict(eps="x")),
    (
        InvalidTypeError,
        "eps has dtype torch.complex64; it must be real",
        dict(eps=torch.ones(1, dtype=torch.complex64)),
    ),
    (InvalidValueError, r"eps has shape \[2\]; it must have one element", dict(eps=torch.ones(2))),
    (InvalidValueError, "iters = -1; it must be an integer >= 0", dict(iters=-1)),
    (InvalidTypeError, "iters is a tensor; it must be a number", dict(iters=torch.tensor(3))),
    (InvalidTypeError, "init_eps is a tensor", dict(init_eps=torch.tensor(1.0, requires_grad=True))),
    (InvalidValueError, r"tol = 0.0; it must be > 0", dict(tol=0.0)),
    (InvalidTypeError, "accelerate is 2", dict(accelerate=2)),
    (InvalidTypeError, "compact_saved is 1.0", dict(compact_saved=1.0)),
    (InvalidValueError, "check_interval = 0", dict(check_interval=0)),
    (InvalidValueError, "checkpoint = -1", dict(checkpoint=-1)),
    (InvalidValueError, "path is 'x'; it must be 'auto'", dict(path="x")),
    (InvalidValueError, "mode is 'x'; it must be 'last'", dict(mode="x")),
    (InvalidValueError, "implicit_tol = 0.1 is for mode 'implicit' only", dict(implicit_tol=0.1)),
    (InvalidValueError, "implicit_iters = 0", dict(implicit_iters=0, mode="implicit")),
    (InvalidTypeError, "tv is bool; it must be segprior.TV", dict(tv=True)),
    (InvalidValueError, "tv_lam = -1", dict(tv=TV(-1.0))),
    (InvalidValueError, "tv_tau = 0.0; it must be > 0", dict(tv=TV(tau=0.0))),
    (InvalidValueError, "tv_edge", dict(tv=TV(edge=torch.ones(6, 6)))),
    (InvalidTypeError, "tv_edge is float; it must be a torch.Tensor", dict(tv=TV(edge=1.0))),
    (InvalidTypeError, "volume is list; it must be segprior.Volume", dict(volume=[1, 2, 3])),
    (InvalidValueError, r"volume has shape \[2\]; it must be \[3\] or \[2, 3\]", dict(volume=Volume([1, 2]))),
    (
        NotSupportedError,
        "volume is a sequence of tensors that require grad.*torch.stack",
        dict(volume=Volume([torch.ones((), requires_grad=True), 2.0, 3.0])),
    ),
    (
        NotSupportedError,
        r"star\[0\].center is a sequence of tensors that require grad",
        dict(star=[Star(1, [2.0, torch.ones((), requires_grad=True)])]),
    ),
    (InvalidValueError, "volume_upper", dict(volume=Volume(upper=torch.ones(3, 3)))),
    (
        InvalidTypeError,
        r"volume is 'many'; it must be a tensor or numbers \[I\]",
        dict(volume=Volume("many")),
    ),
    (InvalidTypeError, "td is TV; it must be segprior.ThresholdDynamics", dict(td=TV())),
    (InvalidValueError, "td_size = 4", dict(td=ThresholdDynamics(size=4))),
    (InvalidValueError, "td_kernel", dict(td=ThresholdDynamics(kernel=torch.ones(2, 2)))),
    (InvalidTypeError, "star is Star; it must be a list", dict(star=Star(1, [2.0, 3.0]))),
    (InvalidTypeError, r"star\[0\] is int", dict(star=[1])),
    (InvalidValueError, r"star\[0\].cls", dict(star=[Star(3, [2.0, 3.0])])),
    (InvalidValueError, r"star\[0\].cls = -1", dict(star=[Star(-1, [2.0, 3.0])])),
    (
        InvalidValueError,
        r"star\[1\].center has shape \[3\]",
        dict(star=[Star(1, [2, 3]), Star(2, [2, 3, 4])]),
    ),
    (InvalidValueError, r"star\[1\].tau is None", dict(star=[Star(1, [2, 3], 0.1), Star(2, [2, 3])])),
    (InvalidValueError, r"star\[0\].tau has shape \[2\]", dict(star=[Star(1, [2, 3], torch.ones(2))])),
    (InvalidValueError, r"star\[0\].tau = -1", dict(star=[Star(1, [2, 3], -1.0)])),
    (InvalidTypeError, "mask has dtype torch.float32; it must be bool or uint8", dict(mask=torch.ones(6, 7))),
    (InvalidValueError, "mask", dict(mask=torch.ones(6, 6, dtype=torch.bool))),
    (InvalidValueError, "spacing has 1 values; features have 2 axes", dict(spacing=[1.0])),
    (InvalidTypeError, "spacing is 1.0; it must be one number per spatial axis", dict(spacing=1.0)),
    (InvalidTypeError, r"spacing\[1\] is None", dict(spacing=[1.0, None])),
    (InvalidTypeError, "warm_start must be a SoftmaxOutput", dict(warm_start=F)),
    (InvalidTypeError, "warm_start's tv_dual is int", dict(warm_start=(1, None), tv=TV())),
    (InvalidValueError, "init_tv_dual", dict(warm_start=(F, None), tv=TV())),
    (
        NotSupportedError,
        "compact_saved",
        dict(tv=TV(), compact_saved=True, accelerate=True, requires_grad=True),
    ),
]


@pytest.mark.parametrize("function", [softmax, softmax_with_duals])
@pytest.mark.parametrize(("kind", "text", "wrong"), WRONG, ids=[text for _, text, _ in WRONG])
def test_errors_name_the_argument(
    function: Any, kind: type[Exception], text: str, wrong: dict[str, Any]
) -> None:
    wrong = {"features": F, **wrong}
    if wrong.pop("requires_grad", False):
        wrong["features"] = F.clone().requires_grad_()
    for _ in range(2):  # a wrong call is not remembered as a right one
        with pytest.raises(kind, match=text):
            function(wrong["features"], **{k: v for k, v in wrong.items() if k != "features"})


@pytest.mark.parametrize(
    ("name", "mode", "tv"),
    [("eps", "last", None), ("tv_lam", "last", "lam"), ("tv_tau", "implicit", "tau")],
)
def test_a_parameter_whose_gradient_the_mode_lacks(name: str, mode: str, tv: str | None) -> None:
    parameter = torch.tensor(0.1, requires_grad=True)
    given: dict[str, Any] = dict(tv=TV(**{tv: parameter})) if tv else dict(eps=parameter)
    with pytest.raises(InvalidValueError, match=f"{name} requires grad; mode is '{mode}'"):
        softmax(F, mode=mode, tol=1e-3, **given)
    with torch.no_grad():
        softmax(F, mode=mode, tol=1e-3, **given)


def test_nothing_kept_though_a_gradient_is_needed() -> None:
    with pytest.raises(InvalidValueError, match="checkpoint = 0 keeps nothing"):
        softmax(F.clone().requires_grad_(), checkpoint=0)
    assert softmax(F, checkpoint=0).shape == F.shape


def test_a_device_that_the_library_does_not_know() -> None:
    with pytest.raises((InvalidValueError, NotImplementedError), match="meta|Meta|CPU"):
        softmax(F, torch.ones(1, device="meta"))


def test_failures_of_images_are_reported_not_raised() -> None:
    features = F.clone()
    features[1, 0, 2, 2] = float("nan")
    out = softmax_with_duals(features)
    assert out.report.status.tolist() == [1, 2] and out.u[0].isfinite().all() and out.u[1].isnan().all()


def test_incoming_gradients_of_another_kind() -> None:
    """After a good call: its views are kept, and must not serve memory of another size."""
    u = softmax(F.clone().requires_grad_(), iters=2, tv=TV(0.3))
    u.sum().backward(retain_graph=True)
    node = u.grad_fn
    kept, saved, *inputs = node.saved_tensors

    def backward(grad_u: torch.Tensor, saved: torch.Tensor = saved) -> list[torch.Tensor]:
        return torch.ops.segprior.softmax_backward(grad_u, kept, saved, *inputs, node.options, [0])

    assert len(backward(torch.ones_like(u))) == 1
    with pytest.raises(InvalidValueError, match="grad_u"):
        backward(torch.ones_like(u)[:1])
    with pytest.raises(InvalidTypeError, match="grad_u"):
        backward(torch.ones_like(u).half())
    with pytest.raises(InvalidValueError, match="saved is torch.float32"):
        backward(torch.ones_like(u), saved.float())
