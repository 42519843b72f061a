"""The package's version, which is that of the C library it was written for.

It has one home, include/segprior/core.h. In a source tree it is read from there; an installed package has it
in its metadata, into which the build has copied it.
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path


def source_tree(package: Path) -> Path | None:
    """The root of the source tree that holds the folder `package`; None if it is installed elsewhere."""
    if package.parts[-3:] != ("bindings", "python", "segprior"):
        return None
    root = package.parents[2]
    return root if (root / "include" / "segprior" / "core.h").is_file() else None


def read_version(package: Path) -> str:
    """The version of the package in the folder `package`, as "major.minor.patch"."""
    root = source_tree(package)
    if root is None:
        return importlib.metadata.version("segprior")
    header = (root / "include" / "segprior" / "core.h").read_text()
    pattern = r"^#define SEGPRIOR_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$"
    return ".".join(re.findall(pattern, header, re.MULTILINE))


__version__ = read_version(Path(__file__).resolve().parent)
