"""Shared by the tests of `segprior.torch`: what they need, threads, seeds."""

from __future__ import annotations

import importlib.util

import pytest

# An import that fails for another reason than torch's absence is an error of the tests.
_without_torch = importlib.util.find_spec("torch") is None
if _without_torch:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    torch.set_num_threads(2)

    @pytest.fixture(autouse=True)
    def _same_numbers_every_time() -> None:
        torch.manual_seed(0)


def pytest_report_header() -> str:
    return (
        "all tests here are left out: torch is not installed"
        if _without_torch
        else f"torch {torch.__version__}"
    )
