"""scipy.ndimage.label, one thread."""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench.components_problem import ComponentsProblem

NAME = "scipy.ndimage.label"


def unavailable() -> str | None:
    try:
        from scipy import ndimage  # noqa: F401
    except Exception as error:
        return f"SciPy cannot be imported ({error})"
    return None


def make(problem: ComponentsProblem) -> Callable[[], Any]:
    from scipy import ndimage

    axes = len(problem.spatial)
    structure = ndimage.generate_binary_structure(axes, axes if problem.full else 1)
    return lambda: ndimage.label(problem.map, structure)[0]
