"""`segprior.metrics.components` against SciPy and scikit-image, numbers and all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import segprior
from segprior import metrics

# From nothing over the thresholds where one component takes all (0.593 with 4 neighbours, 0.407 with 8, in 3-D
# 0.312 with 6) to everything.
DENSITIES = (0.0, 0.01, 0.1, 0.3, 0.407, 0.5, 0.593, 0.7, 0.9, 1.0)
SHAPES = [
    (31,),
    (1, 1),
    (1, 67),
    (67, 1),
    (33, 64),
    (65, 63),
    (97, 101),
    (7, 11, 13),
    (1, 5, 9),
    (17, 16, 33),
]


def structure(axes: int, connectivity: int | str) -> Any:
    return ndimage.generate_binary_structure(axes, axes if connectivity == "full" else 1)


def in_raster_order(labels: Any) -> Any:
    """Numbers by the first voxel, which is SciPy's custom but not its promise."""
    found, first = np.unique(labels, return_index=True)
    number = np.zeros(labels.max() + 1, np.int64)
    ordered = [value for _, value in sorted(zip(first, found)) if value]
    number[ordered] = np.arange(1, len(ordered) + 1)
    return number[labels]


@pytest.mark.parametrize("connectivity", [1, "full"])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_scipy(shape: tuple[int, ...], connectivity: int | str) -> None:
    random = np.random.default_rng(len(shape))
    maps = np.stack([random.random(shape) < density for density in DENSITIES])
    found = metrics.components(maps, connectivity)
    assert found.labels.dtype == np.int32 and found.count.dtype == np.int64
    for b, image in enumerate(maps):
        expected, count = ndimage.label(image, structure(len(shape), connectivity))
        assert found.count[b] == count
        assert np.array_equal(found.labels[b], in_raster_order(expected)), DENSITIES[b]
    if len(shape) != 1 or connectivity == 1:
        same = metrics.components(maps.astype(np.int64) * 7, len(shape) if connectivity == "full" else 1)
        assert np.array_equal(same.labels, found.labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("connectivity", [1, "full"])
@pytest.mark.parametrize("shape", SHAPES)
def test_by_value_against_scikit_image(shape: tuple[int, ...], connectivity: int | str, dtype: Any) -> None:
    measure = pytest.importorskip("skimage.measure", reason="scikit-image is not installed")
    random = np.random.default_rng(len(shape))
    maps = np.stack([random.integers(0, values, size=shape) for values in (1, 2, 3, 5)]).astype(dtype)
    neighbours = len(shape) if connectivity == "full" else 1
    for background in (0, 2):
        found = metrics.components(maps, connectivity, by_value=True, background=background)
        for b, image in enumerate(maps):
            expected = measure.label(image, background=background, connectivity=neighbours)
            assert found.count[b] == expected.max()
            assert np.array_equal(found.labels[b], in_raster_order(expected))


@pytest.mark.parametrize("connectivity", [1, "full"])
def test_counts_of_classes(connectivity: int | str) -> None:
    maps = np.random.default_rng(1).integers(-1, 5, size=(3, 19, 23))
    found = metrics.component_counts(maps, 4, connectivity)
    expected = [[ndimage.label(m == i, structure(2, connectivity))[1] for i in range(4)] for m in maps]
    assert found.dtype == np.int64 and found.tolist() == expected
    without = metrics.component_counts(maps, 4, connectivity, background=2)
    assert (without[:, 2] == 0).all() and np.array_equal(without[:, [0, 1, 3]], found[:, [0, 1, 3]])


@pytest.mark.parametrize("connectivity", [1, "full"])
def test_masks(connectivity: int | str) -> None:
    random = np.random.default_rng(2)
    maps, mask = random.random((2, 33, 31)) < 0.6, random.random((2, 33, 31)) < 0.9
    for given in (mask, mask[:1], mask[0]):
        found = metrics.components(maps, connectivity, mask=given)
        plain = metrics.components(maps & given, connectivity)
        assert np.array_equal(found.labels, plain.labels) and np.array_equal(found.count, plain.count)
    one = np.ones((1, 3, 3), np.uint8)
    assert metrics.component_counts(one, 2, mask=np.eye(3, dtype=bool)).tolist() == [[0, 3]]
    assert metrics.component_counts(one, 2, "full", mask=np.eye(3, dtype=bool)).tolist() == [[0, 1]]


def spiral(side: int) -> Any:
    """One path of one voxel's width from the corner to the middle: components merge late."""
    found = np.zeros((side, side), bool)
    y, x, (dy, dx) = 0, 0, (0, 1)
    found[0, 0] = True
    for length in [side - 1] + [n for n in range(side - 1, 0, -2) for _ in (0, 1)]:
        for _ in range(length):
            y, x = y + dy, x + dx
            found[y, x] = True
        dy, dx = dx, -dy
    return found


def test_spirals_and_combs() -> None:
    snail, comb = spiral(65), np.zeros((65, 65), bool)
    comb[::2], comb[:, -1] = True, True
    maps = np.stack([snail, snail[:, ::-1], snail.T, comb, comb[::-1], comb.T, comb.T[::-1]])
    for connectivity in (1, "full"):
        found = metrics.components(np.ascontiguousarray(maps), connectivity)
        assert (found.count == 1).all() and np.array_equal(found.labels, maps)
    inverse = metrics.components(np.ascontiguousarray(~maps))
    assert inverse.count[3] == 32


def test_threads_do_not_change_anything() -> None:
    maps = np.random.default_rng(3).random((2, 257, 263)) < 0.593
    one = metrics.components(maps, threads=1)
    for threads in (2, 3, 5):
        other = metrics.components(maps, threads=threads)
        assert np.array_equal(one.labels, other.labels) and np.array_equal(one.count, other.count)


def test_edges_without_corners_in_3d() -> None:
    volume = np.zeros((1, 2, 3, 4), np.uint8)
    with pytest.raises(segprior.NotSupportedError, match="connectivity = 2 in 3-D"):
        metrics.components(volume, connectivity=2)
