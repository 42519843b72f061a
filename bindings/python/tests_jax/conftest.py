"""Shared by the tests of segprior.jax: 64-bit mode, golden vectors, small problems."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of problems so small, threads would only wait for one another

import jax
import numpy as np
import pytest

jax.config.update("jax_platforms", "cpu")
# Difference quotients need it; float32 is asked for where it is tested.
jax.config.update("jax_enable_x64", True)
# Most of the tests' time would be XLA's compiler, on code around the calls that is not what is tested.
jax.config.update("jax_disable_most_optimizations", True)

GOLDEN = Path(__file__).resolve().parents[3] / "tests" / "golden"


class Golden:
    """One golden case: its arrays (`case["u"]`; None if it has no such array) and the words of its
    parameters."""

    def __init__(self, name: str) -> None:
        self._folder = GOLDEN / name
        lines = [line.split() for line in (self._folder / "case.txt").read_text().splitlines()]
        self.words = {words[0]: words[1:] for words in lines if words}
        #: (class, step) of each star
        self.stars = [(int(words[1]), float(words[2])) for words in lines if words and words[0] == "star"]

    def __getitem__(self, name: str) -> Any:
        path = self._folder / f"{name}.npy"
        return np.load(path) if path.exists() else None

    def number(self, key: str) -> float | None:
        return float(self.words[key][0]) if key in self.words else None


def golden_names(operator: str) -> list[str]:
    """The cases of "softcut" and "loss" start with that word, all others are of "softmax"."""
    names = sorted(path.parent.name for path in GOLDEN.glob("*/case.txt"))
    assert names, GOLDEN
    if operator == "softmax":
        return [name for name in names if not name.startswith(("softcut_", "loss_"))]
    return [name for name in names if name.startswith(operator + "_")]


def same(found: Any, expected: Any) -> None:
    """Bit for bit, but for the sign of zero."""
    assert np.shape(found) == np.shape(expected)
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    np.testing.assert_array_equal(np.asarray(found, np.float64), np.asarray(expected, np.float64))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)
