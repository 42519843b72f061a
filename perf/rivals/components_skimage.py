"""skimage.measure.label, one thread."""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench.components_problem import ComponentsProblem

NAME = "skimage.measure.label"


def unavailable() -> str | None:
    try:
        from skimage import measure  # noqa: F401
    except Exception as error:
        return f"scikit-image cannot be imported ({error})"
    return None


def make(problem: ComponentsProblem) -> Callable[[], Any]:
    from skimage import measure

    connectivity = len(problem.spatial) if problem.full else 1
    return lambda: measure.label(problem.map, connectivity=connectivity)
