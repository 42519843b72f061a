"""examples/monai_training.py: a few steps of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "monai_training.py"


@pytest.mark.parametrize("plain", [False, True])
def test_training(plain: bool) -> None:
    pytest.importorskip("monai", reason="MONAI is not installed")
    spec = importlib.util.spec_from_file_location("monai_training", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    generator = torch.Generator().manual_seed(0)
    network = example.Network(plain)
    values = example.train(network, 12, not plain, generator)
    assert sum(values[-3:]) < 0.8 * sum(values[:3])
    assert 0 < example.mean_dice(network.eval(), generator) <= 1
    if not plain:
        assert float(network.probabilities.values()["tv_lam"].detach()) != 0.5
