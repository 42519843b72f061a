"""Random SoftCut problems for the tests, and their matrices assembled by scipy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed: pip install 'segprior[test]'")


@dataclasses.dataclass
class Problem:
    """The arguments of `softcut`, and a gradient with respect to x."""

    scores: Any
    edges: tuple[Any, ...]
    diagonals: tuple[Any, ...] | None
    conductance: Any
    grad_x: Any

    @property
    def arguments(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "grad_x"}

    def map(self, function: Any) -> Problem:
        """The problem with a function applied to every array."""

        def each(value: Any) -> Any:
            if value is None:
                return None
            return tuple(map(function, value)) if isinstance(value, tuple) else function(value)

        return Problem(**{f.name: each(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def astype(self, dtype: Any) -> Problem:
        return self.map(lambda array: array.astype(dtype))


def make(
    shape: Sequence[int],
    weight: float = 5.0,
    diagonals: bool = False,
    conductance: bool = False,
    shared: bool = False,
    seed: int = 0,
) -> Problem:
    """Weights between weight / 1000 and weight, most of them large and some small, as those of images."""
    random = np.random.default_rng(seed)
    images, classes, *spatial = shape
    lead = (images, 1 if shared else classes)

    def weights(extents: Sequence[int]) -> np.ndarray:
        return weight * 10 ** (-3 * random.random((*lead, *extents)) ** 4)

    axes = range(len(spatial))
    return Problem(
        scores=random.normal(size=shape),
        edges=tuple(weights([n - (a == m) for a, n in enumerate(spatial)]) for m in axes),
        diagonals=tuple(weights([n - 1 for n in spatial]) for _ in range(2)) if diagonals else None,
        conductance=random.uniform(0.3, 2.0, (*lead, *spatial)) if conductance else None,
        grad_x=random.normal(size=shape),
    )


def pairs(spatial: Sequence[int], diagonals: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The voxel numbers of both ends of every edge: one pair of arrays per array of weights."""
    voxels = np.arange(np.prod(spatial)).reshape(spatial)
    for axis, extent in enumerate(spatial):
        yield voxels.take(range(extent - 1), axis), voxels.take(range(1, extent), axis)
    if diagonals:
        yield voxels[:-1, :-1], voxels[1:, 1:]
        yield voxels[:-1, 1:], voxels[1:, :-1]


def matrix(problem: Problem, image: int, cls: int) -> Any:
    """A of one system, csr."""
    spatial = problem.scores.shape[2:]
    count = int(np.prod(spatial))
    k = min(cls, problem.edges[0].shape[1] - 1)
    d = np.ones(count) if problem.conductance is None else problem.conductance[image, k].ravel()
    found = sparse.diags(d.astype(np.float64), format="csr")
    weights = problem.edges + (problem.diagonals or ())
    for (a, b), array in zip(pairs(spatial, problem.diagonals is not None), weights):
        w, i, j = array[image, k].ravel().astype(np.float64), a.ravel(), b.ravel()
        entries = np.concatenate([w, w, -w, -w])
        rows, columns = np.concatenate([i, j, i, j]), np.concatenate([i, j, j, i])
        found = found + sparse.csr_matrix((entries, (rows, columns)), (count, count))
    found.sort_indices()
    return found


def solve(problem: Problem, right: Any) -> np.ndarray:
    """A^-1 applied to [B, K, *S], by a sparse factorisation."""
    from scipy.sparse.linalg import splu

    found = np.empty(right.shape, np.float64)
    for index in np.ndindex(right.shape[:2]):
        factors = splu(matrix(problem, *index).tocsc())
        found[index] = factors.solve(right[index].ravel().astype(np.float64)).reshape(right.shape[2:])
    return found


def residual(problem: Problem, x: Any, norm: int = 2) -> np.ndarray:
    """|p - A x| / |p| of each system, in float64."""
    found = np.empty(x.shape[:2])
    for index in np.ndindex(x.shape[:2]):
        p = problem.scores[index].ravel().astype(np.float64)
        r = p - matrix(problem, *index) @ x[index].ravel().astype(np.float64)
        found[index] = np.linalg.norm(r, norm) / np.linalg.norm(p, norm)
    return found
