"""Derivatives of `segprior.torch.softmax`, and how it behaves among the rest of torch's autograd."""

from __future__ import annotations

import threading

import pytest
import torch
from softmax_problem import CASES, arguments, tensors
from torch import Tensor
from torch.autograd import forward_ad, gradcheck
from torch.utils.checkpoint import checkpoint

from segprior import TV, Volume
from segprior.errors import NotSupportedError
from segprior.torch import PriorSoftmax, softmax


def tv_softmax(features: Tensor, **more: object) -> Tensor:
    return softmax(features, 0.8, 4, tv=TV(0.3), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CASES)
def test_gradcheck(case: str) -> None:
    given = tensors()
    used = ("features", *CASES[case][0])
    leaves = [given[name].clone().requires_grad_() for name in used]

    def call(*values: Tensor) -> Tensor:
        named = {**given, **dict(zip(used, values))}
        return softmax(named["features"], iters=3, **arguments(case, named))

    # fast_mode: one random direction for each argument, in both modes of the check
    assert gradcheck(call, leaves, fast_mode=True)


def test_gradcheck_of_every_entry() -> None:
    features = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    volume = torch.tensor([[4.0, 5.0]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda f, v: tv_softmax(f, volume=Volume(v)), (features, volume))


def test_gradcheck_of_the_limit() -> None:
    features = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    volume = torch.tensor([[5.0, 7.0]], dtype=torch.float64)

    def call(f: Tensor, e: Tensor) -> Tensor:
        prior = dict(tv=TV(0.3), volume=Volume(volume), tol=1e-12)
        return softmax(f, e, 20000, mode="implicit", implicit_tol=1e-10, **prior)  # type: ignore[arg-type]

    eps = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    assert gradcheck(call, (features, eps), fast_mode=True)


@pytest.mark.parametrize(
    "wanted", [("eps",), ("tv_lam", "td_lam"), ("features", "volume"), ("shared_center",)]
)
def test_any_mixture_of_arguments_may_require_grad(wanted: tuple[str, ...]) -> None:
    given = tensors()
    used = ("features", *CASES["all"][0])
    full = {name: given[name].clone().requires_grad_() for name in used}
    some = {name: given[name].clone().requires_grad_(name in wanted) for name in used}
    grad_u = torch.randn_like(given["features"])
    for leaves in (full, some):
        softmax(leaves["features"], iters=4, **arguments("all", leaves)).backward(grad_u)
    for name in used:
        if name in wanted:
            assert torch.equal(some[name].grad, full[name].grad), name
        else:
            assert some[name].grad is None


def test_nothing_is_kept_where_no_gradient_is_needed() -> None:
    features = torch.randn(1, 3, 8, 8, requires_grad=True)

    def saved_bytes(features: Tensor) -> int:
        tensors: list[Tensor | None] = [features, *[None] * 17]
        options = "iterations=5 tv=1 tv_lam=0.3 backward_mode=1"
        return torch.ops.segprior.softmax(*tensors, options, 1, False, False)[3].numel()

    assert saved_bytes(features) > 0 and tv_softmax(features).requires_grad
    assert saved_bytes(features.detach()) == 0
    with torch.no_grad():
        assert saved_bytes(features) == 0 and not tv_softmax(features).requires_grad
    with torch.inference_mode():
        assert torch.equal(tv_softmax(features), tv_softmax(features.detach()))


def layouts() -> dict[str, Tensor]:
    base = torch.randn(2, 3, 6, 8)
    return {
        "channels_last": base.to(memory_format=torch.channels_last),
        "transposed": base.transpose(2, 3),
        "strided": base[:, :, ::2, 1::2],
        "expanded": base[:1].expand(4, -1, -1, -1),
        "offset": base.flatten()[1:145].view(1, 3, 6, 8),
    }


@pytest.mark.parametrize("name", layouts())
def test_layouts_of_features_and_gradients(name: str) -> None:
    features = layouts()[name]
    leaf = features.detach().requires_grad_()
    plain = features.clone(memory_format=torch.contiguous_format).requires_grad_()
    u, expected = tv_softmax(leaf), tv_softmax(plain)
    assert u.is_contiguous() and torch.equal(u, expected)
    grad_u = torch.randn(*u.shape[:2], u.shape[3], u.shape[2]).transpose(2, 3)
    u.backward(grad_u)
    expected.backward(grad_u.contiguous())
    assert torch.equal(leaf.grad, plain.grad)
    found, wanted = (torch.autograd.grad(tv_softmax(f).sum(1).mean(), f)[0] for f in (leaf, plain))
    assert torch.equal(found, wanted)  # a gradient that is an expanded number


def test_saved_tensors_may_be_moved_and_packed() -> None:
    features = torch.randn(1, 3, 8, 8, requires_grad=True)
    (expected,) = torch.autograd.grad(tv_softmax(features).square().sum(), features)
    with torch.autograd.graph.save_on_cpu():
        moved = tv_softmax(features).square().sum()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone()):
        packed = tv_softmax(features).square().sum()
    for loss in (moved, packed):
        assert torch.equal(torch.autograd.grad(loss, features)[0], expected)


@pytest.mark.parametrize("offset", [0, 8, 24])
def test_saved_tensors_may_come_back_anywhere_in_memory(offset: int) -> None:
    def elsewhere(kept: Tensor) -> Tensor:
        base = torch.empty(offset + kept.nbytes, dtype=torch.uint8)
        memory = base[offset:].view(kept.dtype).view(kept.shape)
        return memory.copy_(kept)

    features = torch.randn(1, 3, 8, 8, requires_grad=True)
    (expected,) = torch.autograd.grad(tv_softmax(features).square().sum(), features)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), elsewhere):
        loss = tv_softmax(features).square().sum()
    assert torch.equal(torch.autograd.grad(loss, features)[0], expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing(use_reentrant: bool) -> None:
    features = torch.randn(1, 3, 8, 8, requires_grad=True)
    (expected,) = torch.autograd.grad(tv_softmax(features).square().sum(), features)
    checkpoint(tv_softmax, features, use_reentrant=use_reentrant).square().sum().backward()
    assert torch.equal(features.grad, expected)


@pytest.mark.parametrize("changed", ["features", "u"])
def test_a_change_in_place_is_detected(changed: str) -> None:
    leaf = torch.randn(1, 3, 8, 8, requires_grad=True)
    features = leaf * 2
    u = tv_softmax(features)
    total = u.sum(1).mean()
    with torch.no_grad():
        (features if changed == "features" else u).mul_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_backward_twice_needs_the_graph() -> None:
    features = torch.randn(1, 3, 8, 8, requires_grad=True)
    total = tv_softmax(features).square().sum()
    (first,) = torch.autograd.grad(total, features, retain_graph=True)
    assert torch.equal(torch.autograd.grad(total, features)[0], first)
    with pytest.raises(RuntimeError, match="second time"):
        total.backward()


def test_there_are_no_second_derivatives() -> None:
    features = torch.randn(1, 3, 4, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(tv_softmax(features).square().sum(), features, create_graph=True)
    with pytest.raises(NotSupportedError, match="no second derivatives"):
        grad.sum().backward()


def test_forward_mode_is_refused_instead_of_giving_zero() -> None:
    features = torch.randn(1, 3, 4, 4)
    with forward_ad.dual_level(), pytest.raises(NotSupportedError, match="forward-mode"):
        tv_softmax(forward_ad.make_dual(features, torch.ones_like(features)))
    with pytest.raises((NotSupportedError, NotImplementedError), match="jvp"):
        torch.func.jvp(tv_softmax, (features,), (torch.ones_like(features),))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_computes_in_float32(dtype: torch.dtype) -> None:
    features = torch.randn(1, 3, 8, 8, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        u = tv_softmax(features)
        assert tv_softmax(features.double()).dtype == torch.float64
    assert u.dtype == torch.float32 and torch.equal(u, tv_softmax(features.float()))
    u.square().sum().backward()
    assert features.grad is not None and features.grad.dtype == dtype
    assert tv_softmax(features).dtype == dtype


def test_autocast_in_a_network() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=1), PriorSoftmax(tv=TV(0.3), iters=3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = net(torch.randn(1, 1, 8, 8)).square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())


def test_calls_and_backwards_on_many_threads() -> None:
    batches = torch.randn(8, 2, 3, 12, 12)
    expected = [
        torch.autograd.grad(tv_softmax(b.requires_grad_()).square().sum(), b)[0] for b in batches.unbind()
    ]
    found: list[Tensor | None] = [None] * 8

    def work(k: int) -> None:
        batch = batches[k].detach().requires_grad_()
        for _ in range(5):
            (found[k],) = torch.autograd.grad(tv_softmax(batch).square().sum(), batch)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f is not None and torch.equal(f, e) for f, e in zip(found, expected))


def test_one_graph_differentiated_by_another_thread() -> None:
    features = torch.randn(1, 3, 8, 8, requires_grad=True)
    total = tv_softmax(features).square().sum()
    (expected,) = torch.autograd.grad(total, features, retain_graph=True)
    thread = threading.Thread(target=total.backward)
    thread.start()
    thread.join()
    assert features.grad is not None and torch.equal(features.grad, expected)


def test_the_number_of_threads_changes_no_bit() -> None:
    features = torch.randn(2, 3, 33, 35)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = tv_softmax(features)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, tv_softmax(features))


def test_deterministic_mode() -> None:
    features = torch.randn(1, 3, 8, 8, requires_grad=True)
    (expected,) = torch.autograd.grad(tv_softmax(features).square().sum(), features)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(torch.autograd.grad(tv_softmax(features).square().sum(), features)[0], expected)
    finally:
        torch.use_deterministic_algorithms(False)
