"""Gradients of `segprior.losses`: difference quotients of the NumPy formulas, incoming gradients, frameworks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from losses_problem import CALLS, WEIGHTS, make
from losses_reference import TERMS, Reference, difference_quotient
from test_arrays import Foreign

import segprior
from segprior import _ffi, losses

# A difference quotient of step 1e-6, of values up to 1000.
CLOSE = {"rtol": 1e-6, "atol": 2e-7}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("name", TERMS)
def test_difference_quotients(name: str, activation: str | None, reduction: str) -> None:
    problem = make((2, 3, 4, 3), activation)
    scores, labels = problem.pop("scores"), problem.pop("labels")

    def value(**moved: Any) -> Any:
        given = {"scores": scores, "labels": labels, **problem, **moved}
        return Reference(given.pop("scores"), given.pop("labels"), **given).term(name, reduction)

    arguments: dict[str, Any] = {name: 1.0}
    r = losses.combined(scores, labels, **arguments, **problem, reduction=reduction)
    g = r.backward()
    np.testing.assert_allclose(g.scores, difference_quotient(lambda a: value(scores=a), scores), **CLOSE)
    for key in ("class_weights", "lower", "upper"):
        expected = difference_quotient(lambda a, key=key: value(**{key: a}), problem[key])
        np.testing.assert_allclose(getattr(g, key), expected, **CLOSE, err_msg=key)


@pytest.mark.parametrize("batch", [False, True])
def test_all_terms(batch: bool) -> None:
    problem = make((2, 3, 5, 4))
    scores, labels = problem.pop("scores"), problem.pop("labels")
    problem.update(lower=problem["lower"][0], upper=problem["upper"] + 20, batch=batch, groups=[1, 1])
    r = losses.combined(scores, labels, **WEIGHTS, **problem)
    g = r.backward(2.5)

    def value(scores: Any = scores, **moved: Any) -> Any:
        return 2.5 * Reference(scores, labels, **{**problem, **moved}).total(WEIGHTS)

    np.testing.assert_allclose(g.scores, difference_quotient(value, scores), **CLOSE)
    expected = difference_quotient(lambda a: value(lower=a), problem["lower"])
    np.testing.assert_allclose(g.lower, expected, **CLOSE)
    assert g.lower.shape == (3,) and g.upper.shape == (2, 3)


def test_incoming_gradients() -> None:
    problem = make((2, 3, 5, 4))
    scores, labels = problem["scores"], problem["labels"]
    r = losses.combined(scores, labels, **WEIGHTS, lower=problem["lower"])
    one = r.backward().scores
    for grad in (1, 1.0, np.ones(()), np.ones((1,)), np.ones((1, 1)), np.float32(1)):
        assert np.array_equal(r.backward(grad).scores, one)
    np.testing.assert_allclose(r.backward(-3.0).scores, -3 * one, rtol=1e-12, atol=1e-16)
    only = r.backward(wanted=["lower"])
    assert only.scores is None and np.array_equal(only.lower, r.backward().lower)


@pytest.mark.parametrize("name", CALLS)
def test_unreduced(name: str) -> None:
    problem = make((2, 3, 5, 4))
    scores, labels, weights = (problem[key] for key in ("scores", "labels", "class_weights"))
    r = CALLS[name](scores, labels, class_weights=weights, reduction="none")
    grad = np.random.default_rng(5).normal(size=r.value.shape)
    g = r.backward(grad)

    def value(scores: Any = scores, class_weights: Any = weights) -> Any:
        expected = Reference(scores, labels, class_weights=class_weights)
        return (grad * (expected.voxels[name] if name in expected.voxels else expected.items[name])).sum()

    np.testing.assert_allclose(g.scores, difference_quotient(value, scores), **CLOSE)
    if name in ("dice", "focal_dice"):
        expected = difference_quotient(lambda a: value(class_weights=a), weights)
        np.testing.assert_allclose(g.class_weights, expected, **CLOSE)
    else:
        assert g.class_weights is None
        with pytest.raises(segprior.NotSupportedError, match="class_weights"):
            r.backward(grad, wanted=["class_weights"])


def test_unreduced_size_penalty() -> None:
    problem = make((3, 3, 5, 4))
    scores, lower, upper = problem["scores"], problem["lower"], problem["upper"]
    r = losses.size_penalty(scores, lower, upper, groups=[2, 0, 2], reduction="none")
    assert (r.value[1] == 0).all()
    grad = np.random.default_rng(6).normal(size=(3, 3))
    g = r.backward(grad)

    def value(scores: Any = scores, lower: Any = lower) -> Any:
        return (grad * Reference(scores, lower=lower, upper=upper, groups=[2, 0, 2]).items["size"]).sum()

    np.testing.assert_allclose(g.scores, difference_quotient(value, scores), **CLOSE)
    expected = difference_quotient(lambda a: value(lower=a), lower)
    np.testing.assert_allclose(g.lower, expected, **CLOSE)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_narrow_dtypes(dtype: Any) -> None:
    problem = make((2, 3, 9, 7))
    scores, labels = problem["scores"].astype(dtype), problem["labels"]
    lower = problem["lower"].astype(np.float32)
    r = losses.combined(scores, labels, **WEIGHTS, lower=lower)
    wide = losses.combined(scores.astype(np.float64), labels, **WEIGHTS, lower=lower.astype(np.float64))
    assert r.value.dtype == np.float32 and r.items["size"].dtype == np.float32
    np.testing.assert_allclose(r.value, wide.value, rtol=2e-5)
    g, h = r.backward(), wide.backward()
    assert g.scores.dtype == dtype and g.lower.dtype == np.float32
    scale = np.abs(h.scores).max()
    # float32 arithmetic, and half a unit of a gradient of 16 bits.
    np.testing.assert_allclose(g.scores, h.scores, rtol=0, atol=scale * max(2e-5, np.finfo(dtype).eps))
    np.testing.assert_allclose(g.lower, h.lower, rtol=2e-5)


def test_16_bit_scores_are_read_exactly() -> None:
    problem = make((2, 3, 9, 7))
    labels, scores = problem["labels"], problem["scores"].astype(np.float16)
    narrow = losses.focal_dice(scores, labels)
    wide = losses.focal_dice(scores.astype(np.float32), labels)
    assert narrow.value == wide.value
    assert np.array_equal(narrow.backward().scores, wide.backward().scores.astype(np.float16))


def test_bfloat16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    problem = make((2, 3, 9, 7))
    labels, scores = problem["labels"], problem["scores"].astype(ml_dtypes.bfloat16)
    narrow, wide = losses.dice(scores, labels), losses.dice(scores.astype(np.float32), labels)
    assert narrow.value == wide.value and narrow.backward().scores.dtype == ml_dtypes.bfloat16


def solve(wrap: Any, real: Any = np.float64) -> list[Any]:
    """Results of calls with every argument wrapped: arrays, the last of which is of labels alone."""
    problem = make((3, 3, 7, 5))

    def array(name: str) -> Any:
        given = problem[name]
        return wrap(given.astype(real) if given.dtype == np.float64 else given)

    names = ("labels", "lower", "upper", "mask", "labelled", "class_weights")
    arguments = {name: array(name) for name in names}
    groups = wrap(np.array([1, 0, 1]))
    r = losses.combined(array("scores"), **arguments, **WEIGHTS, groups=groups)
    g = r.backward(wrap(np.ones((), real)))
    few = losses.size_penalty(array("scores"), wrap(problem["lower"][:2].astype(real)), groups=groups)
    target = wrap(problem["labelled"][:, None] & np.ones((1, 3, 1, 1), bool))
    pieces = losses.dice(array("scores"), target=target, reduction="none")
    voxels = losses.focal(array("scores"), arguments["labels"], reduction="none")
    p = losses.lagrangian_proposal(array("scores"), lower=arguments["lower"], mask=arguments["mask"])
    volumes = segprior.metrics.volumes(arguments["labels"], 3)
    found = [r.value, r.items["size"], r.terms["focal"], g.scores, g.lower, g.upper, g.class_weights]
    found += [few.value, few.backward().lower, p.proposal, p.dual, p.volume]
    found += [pieces.value, pieces.backward(wrap(np.full((3, 3), 0.5, real))).scores]
    found += [voxels.value, voxels.backward(wrap(np.full((3, 7, 5), 0.5, real))).scores]
    return found + [*losses.size_bounds(volumes, "individual"), volumes]


def test_foreign_arrays_everywhere() -> None:
    for plain, foreign in zip(solve(lambda a: a), solve(Foreign)):
        assert isinstance(foreign, (np.ndarray, np.floating)) and np.array_equal(plain, foreign)


def test_inputs_are_not_written() -> None:
    given: list[np.ndarray] = []

    def read_only(array: np.ndarray) -> np.ndarray:
        array.flags.writeable = False
        given.append(array)
        return array

    solve(lambda a: read_only(a.copy()))
    assert given


def check_framework(make_array: Any, back: Any, kind: type, real: Any = np.float64) -> None:
    for plain, found in zip(solve(lambda a: a, real), solve(make_array, real)):
        assert isinstance(found, kind) and tuple(found.shape) == np.shape(plain)
        np.testing.assert_array_equal(back(found), plain)


def test_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    check_framework(torch.from_numpy, lambda t: t.numpy(), torch.Tensor)
    scores = torch.zeros((2, 3, 5, 4), requires_grad=True)
    labels = torch.zeros((2, 1, 5, 4), dtype=torch.int64)
    r = losses.cross_entropy(scores, labels)
    scores.backward(r.backward().scores)
    expected = torch.nn.functional.cross_entropy(scores, labels[:, 0])
    torch.testing.assert_close(r.value, expected.detach())
    torch.testing.assert_close(scores.grad, torch.autograd.grad(expected, scores)[0])
    with pytest.raises(segprior.NotSupportedError, match="grad requires grad"):
        r.backward(torch.ones(1, requires_grad=True))


def test_torch_cuda() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available() or _ffi.library().device_count(_ffi.CUDA) == 0:
        pytest.skip("no CUDA device, or a library without CUDA")
    side = torch.cuda.Stream()
    for plain, found in zip(solve(lambda a: a), solve(lambda a: torch.tensor(a, device="cuda"))):
        assert found.is_cuda and tuple(found.shape) == np.shape(plain)
        # The other device's exp and log, and its sums in another order.
        np.testing.assert_allclose(found.cpu().numpy(), plain, rtol=1e-9, atol=1e-12)
    with torch.cuda.stream(side):
        r = losses.dice(
            torch.zeros((1, 2, 9), device="cuda"), torch.zeros((1, 9), device="cuda", dtype=torch.uint8)
        )
        assert r._call.stream == side.cuda_stream
        assert r.info.status == [segprior.Status.CONVERGED]


def test_cupy() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if _ffi.library().device_count(_ffi.CUDA) == 0:
        pytest.skip("no CUDA device, or a library without CUDA")
    for plain, found in zip(solve(lambda a: a), solve(cupy.asarray)):
        assert isinstance(found, cupy.ndarray)
        np.testing.assert_allclose(cupy.asnumpy(found), plain, rtol=1e-9, atol=1e-12)


def test_jax() -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    with jax.default_device(jax.devices("cpu")[0]):
        check_framework(jax.numpy.asarray, np.asarray, jax.Array, np.float32)
        jax.config.update("jax_enable_x64", True)
        try:
            check_framework(jax.numpy.asarray, np.asarray, jax.Array)
        finally:
            jax.config.update("jax_enable_x64", False)
