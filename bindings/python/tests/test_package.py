"""The package's version and its place: source tree or installation."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

import segprior
from segprior import _ffi, _version

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "bindings" / "python" / "segprior"
HEADER = ROOT / "include" / "segprior" / "core.h"


def copy_of_the_tree(root: Path, version: str) -> Path:
    """A source tree with a package folder and a header of this version; the package folder."""
    major, minor, patch = version.split(".")
    text = re.sub(r"(VERSION_MAJOR) \d+", rf"\1 {major}", HEADER.read_text())
    text = re.sub(r"(VERSION_MINOR) \d+", rf"\1 {minor}", text)
    text = re.sub(r"(VERSION_PATCH) \d+", rf"\1 {patch}", text)
    header = root / "include" / "segprior" / "core.h"
    header.parent.mkdir(parents=True)
    header.write_text(text)
    package = root / "bindings" / "python" / "segprior"
    package.mkdir(parents=True)
    return package


def test_version_of_a_source_tree(tmp_path: Path) -> None:
    package = copy_of_the_tree(tmp_path, "3.12.7")
    assert _version.source_tree(package) == tmp_path
    assert _version.read_version(package) == "3.12.7"


def test_version_of_an_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a source tree around the package, its metadata counts; a tree elsewhere above it does not."""
    monkeypatch.setattr(importlib.metadata, "version", {"segprior": "9.8.7"}.__getitem__)
    copy_of_the_tree(tmp_path, "3.12.7")
    for package in (tmp_path / "lib" / "site-packages" / "segprior", Path("/segprior")):
        assert _version.source_tree(package) is None
        assert _version.read_version(package) == "9.8.7"


def test_the_build_reads_the_version_from_the_header() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("reading pyproject.toml needs Python 3.11")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (rule,) = project["tool"]["dynamic-metadata"]
    found = re.search(rule["regex"], (ROOT / rule["input"]).read_text(), re.MULTILINE)
    assert found is not None
    assert (
        rule["result"].format(**found.groupdict()) == _version.read_version(PACKAGE) == segprior.__version__
    )


def test_no_second_home_of_the_version() -> None:
    """Neither the build's files nor the package spell it."""
    spelled = re.compile(rf"(?<![\d.]){re.escape(segprior.__version__)}(?![\d.])")
    files = [ROOT / "pyproject.toml", ROOT / "CMakeLists.txt", *ROOT.glob("cmake/*"), *PACKAGE.rglob("*.py")]
    assert [path.name for path in files if spelled.search(path.read_text())] == []


def test_library_is_looked_for_under_its_soname() -> None:
    assert f"libsegprior.so.{segprior.__version__.split('.')[0]}" == _ffi.LIBRARY_NAME
