"""`segprior.metrics`: confusion matrices, scores, volumes and boundaries against NumPy."""

from __future__ import annotations

import doctest
from typing import Any, Callable

import numpy as np
import pytest
from test_arrays import Foreign

import segprior
from segprior import _ffi, metrics

SHAPES = [(2, 31), (3, 7, 11), (1, 33, 64), (2, 5, 3, 7), (1, 1, 1), (2, 1, 17), (1, 101, 97)]
LABELS = (np.uint8, np.int32, np.int64)


def make(shape: tuple[int, ...], classes: int, dtype: Any = np.int64, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, size=shape)
    found = np.where(random.random(shape) < 0.6, truth, random.integers(0, classes, size=shape))
    truth[random.random(shape) < 0.1] = 255
    return truth.astype(dtype), found.astype(dtype)


def counts(truth: Any, found: Any, classes: int, mask: Any = None, ignore: int = 255) -> Any:
    used = (truth >= 0) & (truth != ignore)
    used = used if mask is None else used & (np.broadcast_to(mask, truth.shape) != 0)
    matrix = np.zeros((len(truth), classes, classes), np.int64)
    for b in range(len(truth)):
        np.add.at(matrix[b], (truth[b][used[b]], found[b][used[b]]), 1)
    return matrix


@pytest.mark.parametrize("dtype", LABELS)
@pytest.mark.parametrize("classes", [1, 2, 5, 21, 200])
@pytest.mark.parametrize("shape", SHAPES)
def test_confusion(shape: tuple[int, ...], classes: int, dtype: Any) -> None:
    truth, found = make(shape, classes, dtype)
    matrix = metrics.confusion_matrix(truth, found, classes=classes)
    assert matrix.dtype == np.int64 and np.array_equal(matrix, counts(truth, found, classes))
    mask = np.random.default_rng(1).random(shape) < 0.7
    for given in (mask, mask[0], mask[:1]):
        matrix = metrics.confusion_matrix(truth, found, classes=classes, mask=given)
        assert np.array_equal(matrix, counts(truth, found, classes, given))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_confusion_of_scores(shape: tuple[int, ...], dtype: Any) -> None:
    truth, _ = make(shape, 6)
    # Integers: ties, of which the first counts.
    scores = np.random.default_rng(2).integers(-3, 4, size=(shape[0], 6, *shape[1:])).astype(dtype)
    matrix = metrics.confusion_matrix(truth, scores=scores)
    assert np.array_equal(matrix, counts(truth, scores.argmax(1), 6))
    scores[:, 3][scores[:, 3] > 0] = np.nan  # never the largest
    matrix = metrics.confusion_matrix(truth, scores=scores, classes=6)
    assert np.array_equal(matrix, counts(truth, np.where(np.isnan(scores), -np.inf, scores).argmax(1), 6))


def test_unknown_labels() -> None:
    truth, found = make((2, 9, 8), 4)
    truth[truth == 255] = -7
    expected = counts(truth, found, 4)
    assert np.array_equal(metrics.confusion_matrix(truth, found, classes=4), expected)
    assert np.array_equal(metrics.confusion_matrix(truth, found, classes=4, ignore_index=None), expected)
    without = metrics.confusion_matrix(truth, found, classes=4, ignore_index=2)
    assert np.array_equal(without, counts(truth, found, 4, ignore=2)) and (without[:, 2] == 0).all()


def test_invalid_voxels() -> None:
    truth, found = make((3, 9, 8), 4)
    truth[truth == 255] = 0
    expected = counts(truth, found, 4)
    truth[1, 2, 3], found[1, 4, 4], found[2, 0, 0] = 4, -1, 9
    with pytest.raises(segprior.InvalidValueError, match=r"^3 voxels .* outside 0 .. 3, .* images \[1, 2\]"):
        metrics.confusion_matrix(truth, found, classes=4)
    left = metrics.confusion_matrix(truth, found, classes=4, invalid="ignore")
    assert left.sum() == 3 * 72 - 3 and np.array_equal(left[0], expected[0])
    mask = np.ones(truth.shape, np.uint8)
    mask[1, 2, 3] = mask[1, 4, 4] = mask[2, 0, 0] = 0
    assert np.array_equal(metrics.confusion_matrix(truth, found, classes=4, mask=mask), left)
    scores = np.zeros((3, 4, 9, 8), np.float32)
    scores[0, :, 3, 3] = np.nan
    with pytest.raises(segprior.InvalidValueError, match=r"2 voxels .* images \[0, 1\]"):
        metrics.confusion_matrix(truth, scores=scores)


def test_a_channel_axis_is_left_out() -> None:
    truth, found = make((2, 9, 8), 3)
    expected = counts(truth, found, 3)
    scores = np.stack([found == i for i in range(3)], 1).astype(np.float32)
    for t, p in ((truth[:, None], found), (truth, found[:, None]), (truth[:, None], found[:, None])):
        assert np.array_equal(metrics.confusion_matrix(t, p, classes=3), expected)
    for mask in (None, truth[:, None] == 1, truth[0] == 1):
        given = None if mask is None else mask.reshape(-1, 9, 8)
        found_matrix = metrics.confusion_matrix(truth[:, None], scores=scores, mask=mask)
        assert np.array_equal(found_matrix, counts(truth, found, 3, given))
    volume, other = make((2, 5, 4, 3), 3)
    both = metrics.confusion_matrix(volume[:, None], other[:, None], classes=3)
    assert np.array_equal(both, counts(volume, other, 3))
    assert np.array_equal(metrics.volumes(volume[:, None], 3), metrics.volumes(volume, 3))


@pytest.mark.parametrize("shape", [(3, 17), (2, 9, 8), (1, 9, 8), (2, 5, 4, 3)])
def test_a_channel_axis_changes_nothing(shape: tuple[int, ...]) -> None:
    """[B, 1, *S] gives what [B, *S] gives, with masks of any shape beside either."""
    maps, other = make(shape, 3)
    shared = np.random.default_rng(5).random(shape[1:]) < 0.8
    each = np.random.default_rng(6).random(shape) < 0.8
    for same_masks in ([None], [shared, shared[None], shared[None, None]], [each, each[:, None]]):
        expected = solve_map(maps, same_masks[0])
        matrix = metrics.confusion_matrix(maps, other, classes=3, mask=same_masks[0])
        for mask in same_masks:
            for given in (maps, maps[:, None]):
                found = solve_map(given, mask)
                assert found["labels 1"].shape == found["labels full"].shape == given.shape
                for name, array in found.items():
                    assert np.array_equal(array.reshape(expected[name].shape), expected[name]), name
                for prediction in (other, other[:, None]):
                    again = metrics.confusion_matrix(given, prediction, classes=3, mask=mask)
                    assert np.array_equal(again, matrix)


def solve_map(values: Any, mask: Any) -> dict[str, Any]:
    found = {
        "volumes": metrics.volumes(values, 3, mask=mask),
        "length": metrics.boundary_length(values, 3, 2.0, mask=mask),
    }
    for connectivity in (1, "full"):
        components = metrics.components(values, connectivity, True, mask=mask)
        counts_of = metrics.component_counts(values, 3, connectivity, mask=mask)
        found.update({f"count {connectivity}": components.count, f"counts {connectivity}": counts_of})
        found[f"labels {connectivity}"] = components.labels
    return found


def test_a_slice_with_a_channel_axis() -> None:
    square = np.zeros((1, 9, 9), np.uint8)
    square[0, 2:6, 3:7] = 1
    for given in (square, square[:, None]):
        assert metrics.boundary_length(given, 2).tolist() == [[16, 16]]
        assert metrics.boundary_length(given, 2, 2).tolist() == [[32, 32]]
        assert metrics.boundary_length(given, 2, (2, 0.5)).tolist() == [[8 * 0.5 + 8 * 2] * 2]
    # Three numbers say that it is a volume.
    assert metrics.boundary_length(square[:, None], 2, (5, 2, 0.5)).tolist() == [[5 * (8 * 0.5 + 8 * 2)] * 2]
    corners = np.eye(4, dtype=np.uint8)[None]
    for given in (corners, corners[:, None], corners[:, :, None], corners[:, None, None]):
        assert metrics.components(given).count == 4
        for connectivity in (2, "full"):
            assert metrics.components(given, connectivity).count == 1
            assert metrics.component_counts(given, 2, connectivity)[0, 1] == 1
    assert metrics.components(corners[:, None], 3).count == 1


def test_label_255_is_a_class_of_256() -> None:
    truth = np.random.default_rng(7).integers(250, 256, size=(2, 40)).astype(np.uint8)
    scores = np.random.default_rng(8).normal(size=(2, 256, 40))
    everything = metrics.confusion_matrix(truth, truth, classes=256)
    assert np.array_equal(everything, counts(truth, truth, 256, ignore=-1)) and everything[:, 255].any()
    assert metrics.confusion_matrix(truth, scores=scores).sum() == truth.size
    known = metrics.confusion_matrix(truth, truth, classes=256, ignore_index=255)
    assert np.array_equal(known, counts(truth, truth, 256)) and not known[:, 255].any()


def fraction(top: Any, bottom: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return np.asarray(top) / np.asarray(bottom)


@pytest.mark.parametrize("classes", [1, 2, 3, 21])
def test_scores(classes: int) -> None:
    matrix = np.random.default_rng(3).integers(0, 50, size=(4, classes, classes))
    matrix[1] = 0  # nothing at all
    matrix[2, -1] = matrix[2, :, -1] = 0  # a class that does not occur
    s = metrics.scores(matrix)
    tp = np.einsum("nii->ni", matrix)
    fp, fn = matrix.sum(1) - tp, matrix.sum(2) - tp
    expected = {
        "accuracy": fraction(tp.sum(1), matrix.sum((1, 2))),
        "iou": fraction(tp, tp + fp + fn),
        "dice": fraction(2 * tp, 2 * tp + fp + fn),
        "precision": fraction(tp, tp + fp),
        "recall": fraction(tp, tp + fn),
    }
    for name in ("iou", "dice"):
        per_class = expected[name]
        there = ~np.isnan(per_class)
        expected["mean_" + name] = fraction(np.where(there, per_class, 0).sum(1), there.sum(1))
    assert set(expected) == set(s._fields)
    for name, value in expected.items():
        found = getattr(s, name)
        assert found.dtype == np.float64 and found.shape == value.shape
        np.testing.assert_allclose(found, value, rtol=1e-15, err_msg=name)
    assert np.isnan(s.accuracy[1]) and np.isnan(s.mean_iou[1])
    whole = metrics.scores(matrix.sum(0))
    assert whole.accuracy.shape == () and whole.iou.shape == (classes,)
    np.testing.assert_allclose(whole.accuracy, tp.sum() / matrix.sum(), rtol=1e-15)


def test_scores_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    truth, found = make((1, 40, 30), 5)
    known = truth != 255
    s = metrics.scores(metrics.confusion_matrix(truth, found, classes=5)[0])
    t, p = truth[known], found[known]
    np.testing.assert_allclose(s.accuracy, sklearn.accuracy_score(t, p))
    np.testing.assert_allclose(s.iou, sklearn.jaccard_score(t, p, average=None))
    np.testing.assert_allclose(s.dice, sklearn.f1_score(t, p, average=None))
    np.testing.assert_allclose(s.precision, sklearn.precision_score(t, p, average=None))
    np.testing.assert_allclose(s.recall, sklearn.recall_score(t, p, average=None))


def boundary(labels: Any, classes: int, areas: Any, mask: Any) -> Any:
    found = np.zeros((len(labels), classes))
    for axis, area in enumerate(areas, 1):
        a, b = (np.take(labels, range(k, labels.shape[axis] - 1 + k), axis) for k in (0, 1))
        ok = [np.take(mask, range(k, labels.shape[axis] - 1 + k), axis) for k in (0, 1)]
        for i in range(classes):
            faces = ((a == i) != (b == i)) & ok[0] & ok[1]
            found[:, i] += area * faces.sum(tuple(range(1, labels.ndim)))
    return found


@pytest.mark.parametrize("dtype", LABELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_volumes_and_boundaries(shape: tuple[int, ...], dtype: Any) -> None:
    labels, _ = make(shape, 4, dtype)
    mask = np.random.default_rng(4).random(shape) < 0.8
    spacing = (0.5, 2.0, 3.0)[: len(shape) - 1]
    areas = [np.prod(spacing) / side for side in spacing]
    for given, valid in ((None, np.ones(shape, bool)), (mask, mask)):
        expected = [((labels == i) & valid).reshape(shape[0], -1).sum(1) for i in range(4)]
        found = metrics.volumes(labels, 4, mask=given)
        assert found.dtype == np.int64 and np.array_equal(found, np.stack(expected, 1))
        lengths = metrics.boundary_length(labels, 4, spacing, mask=given)
        assert lengths.dtype == np.float64
        np.testing.assert_allclose(lengths, boundary(labels, 4, areas, valid), rtol=1e-14)
    axes = len(spacing) - (shape[1] == 1 < len(spacing))  # an axis of 1 is left out
    areas = [2.0 ** (axes - 1)] * len(spacing)
    everywhere = boundary(labels, 4, areas, np.ones(shape, bool))
    np.testing.assert_allclose(metrics.boundary_length(labels, 4, 2.0), everywhere)


def test_a_square() -> None:
    labels = np.zeros((1, 9, 9), np.uint8)
    labels[0, 2:5, 3:7] = 1
    assert metrics.boundary_length(labels, 2).tolist() == [[14, 14]]
    for spacing in ((2, 0.5), [2, 0.5], np.array([2, 0.5]), np.array([2, 0.5], np.float32)):
        assert metrics.boundary_length(labels, 2, spacing).tolist() == [[2 * 4 * 0.5 + 2 * 3 * 2] * 2]
    for one in (2, np.float32(2), np.array(2), np.array(2.0)):
        assert metrics.boundary_length(labels, 2, one).tolist() == [[28, 28]]
    assert metrics.boundary_length(labels, 3)[0, 2] == 0


def test_nothing() -> None:
    for shape in ((0, 4, 3), (2, 0, 3)):
        empty = np.zeros(shape, np.uint8)
        for found in (
            metrics.confusion_matrix(empty, empty, classes=3),
            metrics.volumes(empty, 3),
            metrics.boundary_length(empty, 3),
            metrics.component_counts(empty, 3),
            metrics.components(empty).count,
        ):
            assert found.shape[0] == shape[0] and (found == 0).all()
        assert metrics.components(empty).labels.shape == shape
    assert metrics.scores(np.zeros((0, 3, 3), np.int64)).iou.shape == (0, 3)


def solve(wrap: Callable[[Any], Any]) -> list[Any]:
    truth, found = make((2, 9, 8), 3)
    t, p, mask = wrap(truth), wrap(found), wrap(found != 1)
    matrix = metrics.confusion_matrix(t, p, classes=3, mask=mask)
    scores = wrap(np.stack([found == i for i in range(3)], 1).astype(np.float32))
    other = metrics.confusion_matrix(t, scores=scores, invalid="ignore")
    arrays = [
        matrix,
        other,
        *metrics.scores(matrix),
        metrics.volumes(t, 3),
        metrics.boundary_length(t, 3, (1, 2)),
    ]
    return arrays + [*metrics.components(p, "full", mask=mask), metrics.component_counts(p, 3)]


def test_foreign_arrays_everywhere() -> None:
    for plain, foreign in zip(solve(lambda a: a), solve(Foreign)):
        assert isinstance(foreign, np.ndarray) and np.array_equal(plain, foreign, equal_nan=True)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_torch(device: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if device == "cuda" and not (torch.cuda.is_available() and _ffi.library().device_count(_ffi.CUDA)):
        pytest.skip("no CUDA device, or a library without CUDA")
    for plain, found in zip(solve(lambda a: a), solve(lambda a: torch.tensor(a, device=device))):
        assert isinstance(found, torch.Tensor) and found.device.type == device
        assert (
            np.array_equal(found.cpu().numpy(), plain, equal_nan=True)
            and found.cpu().numpy().dtype == plain.dtype
        )


def test_cupy() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if _ffi.library().device_count(_ffi.CUDA) == 0:
        pytest.skip("no CUDA device, or a library without CUDA")
    for plain, found in zip(solve(lambda a: a), solve(cupy.asarray)):
        assert isinstance(found, cupy.ndarray) and np.array_equal(cupy.asnumpy(found), plain, equal_nan=True)


@pytest.mark.parametrize("wide", [False, True])
def test_jax(wide: bool) -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    jax.config.update("jax_enable_x64", wide)
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            for plain, found in zip(solve(lambda a: a), solve(jax.numpy.asarray)):
                assert isinstance(found, jax.Array)
                np.testing.assert_allclose(np.asarray(found), plain, rtol=0 if wide else 1e-6)
    finally:
        jax.config.update("jax_enable_x64", False)


def test_docstring_example() -> None:
    failed, tried = doctest.testmod(metrics)
    assert tried > 0 and failed == 0
