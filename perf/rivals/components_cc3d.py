"""cc3d.connected_components (connected-components-3d), told that the map is binary, one thread."""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench.components_problem import ComponentsProblem

NAME = "cc3d"


def unavailable() -> str | None:
    try:
        import cc3d  # noqa: F401
    except Exception as error:
        return f"cc3d cannot be imported ({error})"
    return None


def make(problem: ComponentsProblem) -> Callable[[], Any]:
    import cc3d

    neighbours = {2: (4, 8), 3: (6, 26)}[len(problem.spatial)][problem.full]
    return lambda: cc3d.connected_components(problem.map, connectivity=neighbours, binary_image=True)
