"""What importing does, and what it says when something is missing."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from types import ModuleType

import pytest
import torch

import segprior.torch
from segprior.errors import LibraryError
from segprior.torch._requirements import check_version


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_segprior_alone_does_not_import_torch() -> None:
    assert (
        run("import segprior, sys; print('torch' in sys.modules, 'segprior.torch' in sys.modules)")
        == "False False\n"
    )


def test_importing_does_not_import_the_compiler() -> None:
    # It takes a second.
    assert run("import segprior.torch, sys; print('torch._dynamo' in sys.modules)") == "False\n"


def test_without_torch_the_error_says_what_is_needed() -> None:
    code = """
import sys
sys.modules["torch"] = None
import segprior
try:
    import segprior.torch
except segprior.LibraryError as error:
    print(error)
"""
    assert "segprior.torch needs torch >= 2.7, which cannot be imported" in run(code)


@pytest.mark.parametrize("found", ["2.4.1", "1.13.0+cu117"])
def test_an_old_torch_is_refused(found: str) -> None:
    with pytest.raises(LibraryError, match=f"needs torch >= 2.7; {found.split('+')[0]}"):
        check_version(found)


@pytest.mark.parametrize("found", ["2.7.0", "2.15.0+cu132", "3.0.0a0+git1234"])
def test_newer_ones_are_taken(found: str) -> None:
    check_version(found)


def test_all_names_exist() -> None:
    assert all(hasattr(segprior.torch, name) for name in segprior.torch.__all__)


MODULES = [segprior.torch, importlib.import_module("segprior.torch.softmax"), segprior.torch.modules]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_in_docstrings(module: ModuleType) -> None:
    found = doctest.testmod(module, extraglobs={"torch": torch})
    assert found.attempted > 0 and found.failed == 0
