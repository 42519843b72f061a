"""Derivatives of `segprior.torch.losses` through every facility of autograd."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Optional

import pytest
import torch
from losses_cases import CALLS, WEIGHTS, arguments_of, leaves, make, with_grad
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

import segprior
from segprior.torch import losses


def of_leaves(name: str, own: dict[str, Any]) -> Callable[..., torch.Tensor]:
    """The loss as a function of its leaves alone."""
    keys = list(leaves(own))
    return lambda *values: CALLS[name][0](**{**own, **dict(zip(keys, values))})


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("name", CALLS)
def test_gradcheck(name: str, activation: Optional[str]) -> None:
    own = with_grad(arguments_of(name, make((2, 2, 3, 3), activation)))
    assert torch.autograd.gradcheck(of_leaves(name, own), tuple(leaves(own).values()))


@pytest.mark.parametrize("name", [name for name in CALLS if name != "combined"])
def test_gradcheck_unreduced(name: str) -> None:
    own = with_grad(arguments_of(name, make((2, 2, 3, 3))) | {"reduction": "none"})
    if name in ("cross_entropy", "partial_cross_entropy", "focal"):
        own["class_weights"].requires_grad_(False)
    assert torch.autograd.gradcheck(of_leaves(name, own), tuple(leaves(own).values()))


def test_gradcheck_of_terms_and_items() -> None:
    """Incoming gradients of several outputs at once."""
    own = with_grad(arguments_of("combined", make((2, 2, 3, 3))) | {"groups": torch.tensor([0, 0])})
    keys = list(leaves(own))

    def function(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return losses.combined_with_terms(**{**own, **dict(zip(keys, values))})[:3]

    assert torch.autograd.gradcheck(function, tuple(leaves(own).values()))


@pytest.mark.parametrize("wanted", ["scores", "class_weights", "lower", "upper"])
def test_one_gradient_alone(wanted: str) -> None:
    arguments = arguments_of("combined", make())
    own = {key: value for key, value in arguments.items()}
    own[wanted] = arguments[wanted].clone().requires_grad_()
    losses.combined(**own).backward()
    everything = with_grad(arguments)
    losses.combined(**everything).backward()
    assert torch.equal(own[wanted].grad, everything[wanted].grad)


def test_parameter_shapes_and_dtypes() -> None:
    """Gradients have the shape and dtype of the parameter: [I] bounds, parameters of another precision."""
    problem = make()
    lower = problem["lower"][0].float().requires_grad_()
    weights = problem["class_weights"].half().requires_grad_()
    losses.size_penalty(problem["scores"], lower, class_weights=weights).backward()
    assert lower.grad is not None and lower.grad.shape == (3,) and lower.grad.dtype == torch.float32
    assert weights.grad is not None and weights.grad.dtype == torch.float16
    expected = segprior.losses.size_penalty(
        problem["scores"], lower.detach().double(), class_weights=weights.detach().double()
    ).backward()
    torch.testing.assert_close(lower.grad, expected.lower.float())
    torch.testing.assert_close(weights.grad, expected.class_weights.half())


def test_no_second_derivatives() -> None:
    problem = make()
    scores = problem["scores"].requires_grad_()
    loss = losses.dice(scores, problem["labels"])
    gradient = torch.autograd.grad(loss, scores, create_graph=True)[0]
    with pytest.raises(segprior.NotSupportedError, match="second derivatives"):
        torch.autograd.grad(gradient.square().sum(), scores)


def test_no_forward_mode() -> None:
    problem = make()
    with pytest.raises(NotImplementedError):  # torch's own, or ours, which is one
        torch.func.jvp(
            lambda scores: losses.dice(scores, problem["labels"]),
            (problem["scores"],),
            (torch.ones_like(problem["scores"]),),
        )


def test_transforms() -> None:
    """torch.func: grad, vmap of grad, and the Jacobian of what is not reduced."""
    problem = make()
    scores, labels = problem["scores"], problem["labels"]
    leaf = scores.clone().requires_grad_()
    losses.dice(leaf, labels).backward()
    assert torch.equal(torch.func.grad(losses.dice)(scores, labels), leaf.grad)  # type: ignore[arg-type]
    several = torch.stack([scores, 2 * scores])
    found = torch.vmap(torch.func.grad(losses.dice), in_dims=(0, None))(several, labels)
    assert torch.equal(found[0], leaf.grad) and not torch.equal(found[1], leaf.grad)  # type: ignore[arg-type]
    rows = torch.func.jacrev(lambda s: losses.dice(s, labels, reduction="none"))(scores)
    torch.testing.assert_close(rows.sum((0, 1)) / 6, leaf.grad)


def test_no_gradient_of_class_weights_per_voxel() -> None:
    own = with_grad(arguments_of("focal", make()) | {"reduction": "none"})
    loss = losses.focal(**own).sum()
    with pytest.raises(segprior.NotSupportedError, match="class_weights"):
        loss.backward()


def test_no_grad() -> None:
    own = with_grad(arguments_of("combined", make()))
    with torch.no_grad():
        found = losses.combined(**own)
    with torch.inference_mode():
        inferred = losses.combined(**own)
    assert not found.requires_grad and found.grad_fn is None
    assert torch.equal(found, losses.combined(**own).detach()) and torch.equal(found, inferred)


def test_changed_in_place() -> None:
    problem = make()
    scores = problem["scores"].requires_grad_()
    loss = losses.dice(scores, problem["labels"])
    with torch.no_grad():
        scores += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def gradient(**options: Any) -> torch.Tensor:
    problem = make()
    scores = problem["scores"].requires_grad_()
    losses.combined(scores, problem["labels"], **WEIGHTS, lower=problem["lower"], **options).backward()
    assert scores.grad is not None
    return scores.grad


def test_saved_tensors() -> None:
    expected = gradient()
    with save_on_cpu():
        assert torch.equal(gradient(), expected)
    with saved_tensors_hooks(lambda tensor: tensor.clone().numpy(), torch.from_numpy):
        assert torch.equal(gradient(), expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint(reentrant: bool) -> None:
    problem = make()
    scores = problem["scores"].requires_grad_()
    loss = checkpoint(losses.dice, scores, problem["labels"], use_reentrant=reentrant)
    loss.backward()
    again = problem["scores"].detach().clone().requires_grad_()
    losses.dice(again, problem["labels"]).backward()
    assert torch.equal(scores.grad, again.grad)  # type: ignore[arg-type]


def test_retained_graph_and_threads() -> None:
    """Backward of one graph from several threads, each with its own plans, as torch allows it."""
    problem = make()
    scores = problem["scores"].requires_grad_()
    loss = losses.focal_dice(scores, problem["labels"])
    expected = torch.autograd.grad(loss, scores, retain_graph=True)[0]
    found: list[torch.Tensor] = []

    def work() -> None:
        for _ in range(20):
            found.append(torch.autograd.grad(loss, scores, retain_graph=True)[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80 and all(torch.equal(grad, expected) for grad in found)


def test_thread_count_changes_no_bit() -> None:
    problem = make((2, 3, 40, 50), dtype=torch.float32)
    before = torch.get_num_threads()
    values = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            values.append(losses.combined(problem["scores"], problem["labels"], cross_entropy=1, dice=1))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(values[0], values[1]) and torch.equal(values[0], values[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    """16-bit scores are computed from a float32 copy; the gradient comes back in 16 bits. float64 stays."""
    problem = make(dtype=dtype)
    scores, labels = problem["scores"].requires_grad_(), problem["labels"]
    target = problem["scores"].detach().float().softmax(1)
    with torch.autocast("cpu", dtype=dtype):
        loss, soft = losses.dice(scores, labels), losses.dice(scores, target=target)
    loss.backward()
    wide = scores.detach().float().requires_grad_()
    expected = losses.dice(wide, labels)
    expected.backward()
    assert loss.dtype == torch.float32 and torch.equal(loss, expected)
    assert scores.grad is not None and wide.grad is not None
    assert scores.grad.dtype == dtype and torch.equal(scores.grad, wide.grad.to(dtype))
    assert torch.equal(soft, losses.dice(wide, target=target))
    with torch.autocast("cpu", dtype=dtype):
        assert losses.dice(make()["scores"], labels).dtype == torch.float64


def test_vmap() -> None:
    problems = [make(seed=seed) for seed in range(3)]
    stacked = {key: torch.stack([p[key] for p in problems]) for key in ("scores", "labels", "lower")}

    def loss(scores: torch.Tensor, labels: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
        return losses.combined(scores, labels, **WEIGHTS, lower=lower)

    found = torch.vmap(loss)(*stacked.values())
    assert torch.equal(found, torch.stack([loss(*[p[key] for key in stacked]) for p in problems]))
    scores = stacked["scores"].requires_grad_()
    torch.vmap(loss)(scores, stacked["labels"], stacked["lower"]).sum().backward()
    one = problems[1]["scores"].requires_grad_()
    loss(one, problems[1]["labels"], problems[1]["lower"]).backward()
    assert torch.equal(scores.grad[1], one.grad)  # type: ignore[index, arg-type]
