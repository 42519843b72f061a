"""Random SoftCut problems as torch tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Optional

import torch
from torch import Tensor

import segprior


@dataclasses.dataclass
class Case:
    """The tensor arguments of `softcut`."""

    scores: Tensor
    edges: tuple[Tensor, ...]
    diagonals: Optional[tuple[Tensor, ...]] = None
    conductance: Optional[Tensor] = None
    x0: Optional[Tensor] = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @property
    def slots(self) -> list[Optional[Tensor]]:
        """As the operator has them."""
        edges = [*self.edges, None, None][:3]
        return [self.scores, *edges, *(self.diagonals or (None, None)), self.conductance, self.x0]

    @property
    def differentiable(self) -> list[Tensor]:
        return [t for t in self.slots[:7] if t is not None]

    def map(self, function: Callable[[Tensor], Tensor]) -> Case:
        def each(value: Any) -> Any:
            if value is None:
                return None
            return tuple(map(function, value)) if isinstance(value, tuple) else function(value)

        return Case(**{name: each(value) for name, value in self.arguments.items()})

    def leaves(self) -> Case:
        """Copies that require grad, but for x0."""
        found = self.map(lambda t: t.detach().clone().requires_grad_())
        if found.x0 is not None:
            found.x0 = found.x0.detach()
        return found

    def with_tensors(self, tensors: Sequence[Tensor]) -> Case:
        """The case with others in the place of `differentiable`."""
        rest = iter(tensors)
        slots = [None if t is None else next(rest) for t in self.slots[:7]]
        return Case(
            slots[0],
            tuple(slots[1 : 1 + len(self.edges)]),
            None if self.diagonals is None else tuple(slots[4:6]),
            slots[6],
            self.x0,
        )


def make(
    shape: Sequence[int],
    diagonals: bool = False,
    conductance: bool = False,
    shared: bool = False,
    x0: bool = False,
    weight: float = 5.0,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Case:
    random = torch.Generator().manual_seed(seed)
    batch, classes, *spatial = shape
    lead = (batch, 1 if shared else classes)

    def uniform(extents: Sequence[int], least: float, largest: float) -> Tensor:
        values = torch.rand((*lead, *extents), generator=random, dtype=torch.float64)
        return least + (largest - least) * values

    def normal() -> Tensor:
        return torch.randn(tuple(shape), generator=random, dtype=torch.float64)

    axes = range(len(spatial))
    found = Case(
        normal(),
        tuple(uniform([n - (a == m) for a, n in enumerate(spatial)], 0.1, weight) for m in axes),
        tuple(uniform([n - 1 for n in spatial], 0.1, weight) for _ in range(2)) if diagonals else None,
        uniform(spatial, 0.3, 2.0) if conductance else None,
        normal() if x0 else None,
    )
    return found.map(lambda t: t.to(dtype))


def reference(case: Case, **options: Any) -> segprior.SoftcutResult:
    """What `segprior.softcut` finds."""
    return segprior.softcut(**case.map(lambda t: t.detach()).arguments, **options)


CASES: dict[str, dict[str, Any]] = {
    "1-D": {"shape": (2, 3, 17)},
    "2-D": {"shape": (2, 3, 6, 7), "x0": True},
    "2-D, 8 neighbours, shared": {
        "shape": (2, 3, 5, 6),
        "diagonals": True,
        "shared": True,
        "conductance": True,
    },
    "2-D, 8 neighbours": {"shape": (1, 2, 5, 6), "diagonals": True, "conductance": True},
    "3-D": {"shape": (2, 2, 3, 4, 5), "conductance": True},
    "3-D, shared": {"shape": (1, 3, 4, 3, 3), "shared": True},
}
