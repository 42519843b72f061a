"""The layers: `PriorSoftmax`, `VPTVSoftmax`, `STDSoftmax`."""

from __future__ import annotations

import copy
import io
import math
import multiprocessing
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import segprior
from segprior import TV, Star, ThresholdDynamics, Volume
from segprior.errors import InvalidTypeError, InvalidValueError
from segprior.torch import PriorSoftmax, STDSoftmax, VPTVSoftmax, softmax

F = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(1))
CENTERS = torch.tensor([[[3.0, 4.0]], [[4.5, 4.5]]])


def full_layer() -> PriorSoftmax:
    return PriorSoftmax(
        0.6,
        5,
        tv=TV(0.4, 0.2, torch.full((8, 9), 0.9)),
        td=ThresholdDynamics(0.3, 3, 1.2, edge=torch.full((8, 9), 0.8)),
        volume=[20, 25, 27],
        star=(1,),
        star_tau=0.2,
        learnable=("eps", "tv_lam", "tv_tau", "tv_edge", "td_lam", "td_sigma", "td_edge", "star_tau"),
    )


def test_forward_is_the_function() -> None:
    expected = softmax(
        F,
        0.6,
        5,
        tv=TV(0.4, 0.2, torch.full((8, 9), 0.9)),
        td=ThresholdDynamics(0.3, 3, 1.2, edge=torch.full((8, 9), 0.8)),
        volume=Volume([20, 25, 27]),
        star=[Star(1, CENTERS[:, 0], 0.2)],
    )
    torch.testing.assert_close(full_layer()(F, centers=CENTERS), expected)
    fixed = PriorSoftmax(0.6, 5, tv=TV(0.4, edge=torch.full((8, 9), 0.9)), volume=[20, 25, 27])
    expected = softmax(F, 0.6, 5, tv=TV(0.4, edge=torch.full((8, 9), 0.9)), volume=Volume([20, 25, 27]))
    assert torch.equal(fixed(F), expected)
    assert torch.equal(fixed.with_duals(F).u, expected)


def test_learnable_values_start_where_they_were_given_and_have_gradients() -> None:
    layer = full_layer()
    for name, value in dict(eps=0.6, tv_lam=0.4, tv_tau=0.2, td_lam=0.3, td_sigma=1.2, star_tau=0.2).items():
        assert math.isclose(float(layer.values()[name].detach()), value, rel_tol=1e-6), name
    assert layer.raw_tv_edge.shape == (8, 9)
    layer(F, centers=CENTERS).square().sum().backward()
    assert len(list(layer.parameters())) == 8
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("value", [1e-6, 1e-3, 1.0, 30.0, 1e4])
def test_the_parameterisation_holds_small_and_large_values(value: float) -> None:
    layer = PriorSoftmax(value, 1, learnable=("eps",))
    assert math.isclose(float(layer.values()["eps"].detach()), value, rel_tol=1e-6)


def test_values_stay_valid_however_large_the_steps() -> None:
    layer = PriorSoftmax(0.5, 3, tv=TV(0.3), learnable=("eps", "tv_lam"))
    optimizer = torch.optim.SGD(layer.parameters(), lr=3.0)
    for _ in range(20):
        optimizer.zero_grad()
        loss = -layer(F).square().sum()
        loss.backward()
        optimizer.step()
        assert loss.isfinite() and all(
            v.isfinite() and v > 0 for v in layer.values().values() if v is not None
        )


def test_a_learnable_kernel_is_free() -> None:
    kernel = torch.tensor([[0.0, -0.1, 0.0], [0.2, 0.4, 0.2], [0.0, 0.1, 0.0]])
    layer = PriorSoftmax(td=ThresholdDynamics(0.3, kernel=kernel), iters=3, learnable=("td_kernel",))
    assert torch.equal(layer(F), softmax(F, iters=3, td=ThresholdDynamics(0.3, kernel=kernel)))
    layer(F).square().sum().backward()
    assert layer.raw_td_kernel.grad.shape == (3, 3)


def test_logits_are_those_of_u_and_keep_cross_entropy_finite() -> None:
    layer = PriorSoftmax(0.5, 5, tv=TV(0.3), return_logits=True)
    plain = PriorSoftmax(0.5, 5, tv=TV(0.3))
    torch.testing.assert_close(layer(F).softmax(1), plain(F))
    # 100 eps between two scores: u underflows.
    far = torch.zeros(1, 2, 2, 2)
    far[0, 0] = 100.0
    far[0, :, 0, 0] = torch.tensor([0.0, 30.0])
    far.requires_grad_()
    logits = PriorSoftmax(1.0, 1, return_logits=True)(far)
    loss = nn.functional.cross_entropy(logits, torch.tensor([[[0, 1], [0, 0]]]))
    loss.backward()
    assert logits.isfinite().all() and loss.isfinite() and far.grad.isfinite().all()
    assert far.grad[0, :, 0, 0].abs().min() > 0.2  # wrong by 30 eps: learns
    assert not far.grad[0, :, 0, 1].any()  # wrong by 100 eps: beyond what float32 holds


def test_what_a_call_gives_replaces_what_the_layer_has() -> None:
    layer = PriorSoftmax(0.6, 5, tv=TV(0.4), td=ThresholdDynamics(0.3, 3), volume=Volume(lower=[1, 2, 3]))
    edge, mask = torch.rand(2, 8, 9), torch.rand(8, 9) > 0.1
    volume = torch.tensor([20.0, 20.0, 20.0])
    found = layer(F, volume, tv_edge=edge, td_edge=edge[0], mask=mask)
    expected = softmax(
        F,
        0.6,
        5,
        tv=TV(0.4, edge=edge),
        td=ThresholdDynamics(0.3, 3, edge=edge[0]),
        volume=Volume(volume),
        mask=mask,
    )
    assert torch.equal(found, expected)
    again = layer(F, warm_start=layer.with_duals(F))
    assert not torch.equal(again, layer(F))


@pytest.mark.parametrize(
    "centers", [CENTERS, CENTERS[:1].expand(2, -1, -1), CENTERS[0], [CENTERS[:, 0]], [[3.0, 4.0]]], ids=str
)
def test_forms_of_centers(centers: Any) -> None:
    layer = PriorSoftmax(0.6, 5, star=(2,))
    given = centers[..., 0, :] if isinstance(centers, Tensor) else centers[0]
    assert torch.equal(layer(F, centers=centers), softmax(F, 0.6, 5, star=[Star(2, given)]))


def test_centers_of_a_network_learn() -> None:
    centers = CENTERS.clone().requires_grad_()
    STDSoftmax(0.1, 0.75, 5, star=(1,))(F, centers=centers).square().sum().backward()
    assert centers.grad is not None and centers.grad.abs().max() > 0


def test_presets_are_those_of_the_papers() -> None:
    volume = [20, 25, 27]
    found, expected = VPTVSoftmax(volume)(F), segprior.presets.vptv(F, volume).u
    assert torch.equal(found, expected)
    assert torch.equal(VPTVSoftmax()(F), segprior.presets.tv_softmax(F).u)
    assert torch.equal(STDSoftmax()(F), segprior.presets.std(F).u)
    assert torch.equal(STDSoftmax(volume=volume)(F), segprior.presets.vp_std(F, volume).u)
    star = [Star(1, [3.0, 4.0])]
    found = STDSoftmax(0.1, 0.75, 50, star=(1,))(F, centers=[[3.0, 4.0]])
    assert torch.equal(found, segprior.presets.ss_std(F, star).u)


def test_state_dict_copy_and_pickle() -> None:
    layer = full_layer()
    expected = layer(F, centers=CENTERS)
    assert set(layer.state_dict()) == {f"raw_{name}" for name in layer._raw}
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other = full_layer()
    with torch.no_grad():
        other.raw_eps.add_(1)
    assert not torch.equal(other(F, centers=CENTERS), expected)
    other.load_state_dict(torch.load(buffer))
    for same in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(same(F, centers=CENTERS), expected)


def test_conversions_keep_volumes() -> None:
    layer = PriorSoftmax(
        0.6, 5, tv=TV(0.4, edge=torch.ones(8, 9)), volume=[70001.0, 2.0, 3.0], learnable=("eps",)
    )
    layer.half()
    assert layer.raw_eps.dtype == layer.fixed_tv_edge.dtype == torch.float16
    assert layer.volume_v.tolist() == [70001.0, 2.0, 3.0]
    assert layer(F.half()).dtype == torch.float16
    layer.double()
    assert layer(F.double()).dtype == torch.float64
    assert layer.to("meta").volume_v.device.type == "meta"


def test_repr_shows_what_there_is() -> None:
    text = repr(full_layer())
    for part in ("eps=0.6 (learnable)", "tv_edge=[8, 9] (learnable)", "volume", "star=[1]", "iters=5"):
        assert part in text
    kernel = [[0.0, 0.1, 0.0], [0.1, 0.6, 0.1], [0.0, 0.1, 0.0]]
    assert "td_kernel=[3, 3]" in repr(PriorSoftmax(td=ThresholdDynamics(kernel=kernel)))
    assert "eps=[]" in repr(PriorSoftmax(learnable=("eps",)).to("meta"))
    assert "learnable" not in repr(PriorSoftmax(tv=TV(0.5))) and "tv_lam=0.5" in repr(
        PriorSoftmax(tv=TV(0.5))
    )


def _loss_of(layer: PriorSoftmax, queue: Any) -> None:
    torch.set_num_threads(1)
    loss = layer(F, centers=CENTERS).square().sum()
    loss.backward()
    queue.put((float(loss.detach()), float(layer.raw_eps.grad)))


def test_in_a_forked_process() -> None:
    layer = full_layer()
    loss = layer(F, centers=CENTERS).square().sum()
    loss.backward()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    copied = full_layer()
    process = context.Process(target=_loss_of, args=(copied, queue))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert queue.get() == (float(loss.detach()), float(layer.raw_eps.grad))


def test_a_layer_compiles_with_its_volumes_and_centers() -> None:
    layer = full_layer()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    losses = [f(F, centers=CENTERS).square().sum() for f in (compiled, layer)]
    assert torch.equal(*losses)
    parameters = list(layer.parameters())
    for found, wanted in zip(*[torch.autograd.grad(loss, parameters) for loss in losses]):
        assert torch.equal(found, wanted)


WRONG: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (InvalidTypeError, "tv is bool; it must be segprior.TV", dict(tv=True)),
    (InvalidTypeError, "td is float; it must be segprior.ThresholdDynamics", dict(td=1.0)),
    (InvalidValueError, "learnable has 'tv_lam'; this layer has eps", dict(learnable=("tv_lam",))),
    (InvalidTypeError, "learnable is 'eps'; it must be a sequence of names", dict(learnable="eps")),
    (InvalidValueError, "tv_tau is None; to be learnable", dict(tv=TV(), learnable=("tv_tau",))),
    (InvalidValueError, "tv_lam holds 0.0; to be learnable", dict(tv=TV(0.0), learnable=("tv_lam",))),
    (InvalidValueError, "learnable has 'td_kernel'", dict(td=ThresholdDynamics(), learnable=("td_kernel",))),
    (InvalidTypeError, "eps is 'x'", dict(eps="x", learnable=("eps",))),
    (InvalidValueError, r"star\[0\] = -1", dict(star=(-1,))),
]


@pytest.mark.parametrize(("kind", "text", "wrong"), WRONG, ids=[text for _, text, _ in WRONG])
def test_errors_of_the_constructor(kind: type[Exception], text: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(kind, match=text):
        PriorSoftmax(**wrong)


def test_errors_of_a_call() -> None:
    with pytest.raises(InvalidValueError, match="centers is None; the star classes"):
        PriorSoftmax(star=(1,))(F)
    with pytest.raises(InvalidValueError, match="centers are of 1 classes; this layer has 2"):
        PriorSoftmax(star=(0, 1))(F, centers=CENTERS)
    with pytest.raises(InvalidValueError, match=r"centers has shape \[2\]"):
        PriorSoftmax(star=(1,))(F, centers=torch.ones(2))
    with pytest.raises(InvalidValueError, match="centers are of 1 classes; this layer has 0"):
        PriorSoftmax()(F, centers=CENTERS)
    with pytest.raises(InvalidValueError, match="tv_edge is given, but this layer has no tv"):
        PriorSoftmax()(F, tv_edge=torch.ones(8, 9))
    with pytest.raises(InvalidValueError, match="eps = -1"):
        PriorSoftmax(-1.0)(F)
