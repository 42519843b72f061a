"""Shared by the tests: golden vectors and a small problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

GOLDEN = Path(__file__).resolve().parents[3] / "tests" / "golden"


class Golden:
    """One golden case: its arrays (`case["u"]`; None if it has no such array) and parameters."""

    def __init__(self, name: str) -> None:
        self._folder = GOLDEN / name
        lines = [line.split() for line in (self._folder / "case.txt").read_text().splitlines()]
        self._values = {words[0]: words[1:] for words in lines if words}
        #: (class, step) of each star
        self.stars = [(int(words[1]), float(words[2])) for words in lines if words and words[0] == "star"]

    def __getitem__(self, name: str) -> Any:
        path = self._folder / f"{name}.npy"
        return np.load(path) if path.exists() else None

    def text(self, key: str) -> str | None:
        return self._values[key][0] if key in self._values else None

    def numbers(self, key: str) -> list[float] | None:
        return [float(word) for word in self._values[key]] if key in self._values else None

    def number(self, key: str) -> float | None:
        found = self.numbers(key)
        return None if found is None else found[0]


def golden_names(operator: str = "softmax") -> list[str]:
    """The cases of "softcut" and "loss" start with that word, all others are of "softmax"."""
    names = sorted(path.parent.name for path in GOLDEN.glob("*/case.txt"))
    if operator == "softmax":
        return [name for name in names if not name.startswith(("softcut_", "loss_"))]
    return [name for name in names if name.startswith(operator + "_")]


@pytest.fixture
def problem() -> dict[str, Any]:
    """A small problem as plain NumPy arrays, float64."""
    random = np.random.default_rng(7)
    return {
        "features": random.normal(size=(2, 3, 6, 7)),
        "edge": random.uniform(0.3, 1.2, size=(2, 6, 7)),
        "volume": np.array([[10.0, 12.0, 20.0], [4.0, 30.0, 8.0]]),
        "grad_u": random.normal(size=(2, 3, 6, 7)),
    }
