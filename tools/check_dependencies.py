#!/usr/bin/env python3
"""Checks which part of the tree includes which: bindings -> capi -> kernels/<operator> -> kernels/common.

Operators do not include one another; the references in tests/ref include nothing of the library, because
shared mathematics would agree with its own mistake; a public header needs the C library alone; only kernels
and tests know CUDA, and nothing below bindings knows a framework.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUFFIXES = {".c", ".cpp", ".cu", ".h", ".hpp"}
C_HEADERS = {"stddef.h", "stdint.h"}
FRAMEWORKS = re.compile(r"Python\.h|pybind11/|nanobind/|torch/|ATen/|c10/|xla/|numpy/")  # bindings/ may know them
CUDA = re.compile(r"cuda|cub/|thrust/|cooperative_groups")


def rooms():
    """(folder, what a file below it may include from the repository), the most specific first."""
    operators = [p.name for p in (ROOT / "kernels").iterdir() if p.is_dir() and p.name != "common"]
    rules = [("include/segprior", ["segprior/"])]
    rules += [(f"kernels/{name}", [f"kernels/{name}/", "kernels/common/", "segprior/", "hwy/"]) for name in operators]
    return rules + [
        ("kernels/common", ["kernels/common/", "segprior/", "hwy/"]),
        ("capi", ["capi/", "kernels/", "segprior/"]),
        ("bindings", ["bindings/", "segprior/", "xla/ffi/"]),
        ("tests/ref", ["tests/ref/", "tests/support/"]),
    ]


def errors_of(path, folder, allowed):
    relative = path.relative_to(ROOT).as_posix()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*(["<])([^">]+)', line)
        if not match:
            continue
        name = match[2]
        if folder != "bindings" and FRAMEWORKS.match(name):
            yield f"{relative}:{number}: {name}: a framework's header"
        if not folder.startswith("kernels") and CUDA.match(name):
            yield f"{relative}:{number}: {name}: a CUDA header outside kernels/"
        if match[1] == "<":
            if folder == "include/segprior" and name not in C_HEADERS and path.suffix == ".h":
                yield f"{relative}:{number}: {name}: public headers use {', '.join(sorted(C_HEADERS))} only"
            continue
        if (path.parent / name).exists() and (path.parent / name).resolve().is_relative_to(ROOT):
            name = (path.parent / name).resolve().relative_to(ROOT).as_posix()
        name = name.removeprefix("include/")
        if not any(name.startswith(prefix) for prefix in allowed):
            yield f"{relative}:{number}: {name}: {folder} may include {', '.join(allowed)} only"


def main():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not files:  # an unpacked archive
        files = [p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*") if p.is_file()]
    checked, errors = 0, []
    for folder, allowed in rooms():
        for name in files:
            if name.startswith(folder + "/") and pathlib.Path(name).suffix in SUFFIXES and (ROOT / name).exists():
                checked += 1
                errors += errors_of(ROOT / name, folder, allowed)
    print("\n".join(errors + [f"dependencies: {checked} files checked, {len(errors)} wrong includes"]))
    return 1 if errors or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
