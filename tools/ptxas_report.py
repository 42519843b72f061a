#!/usr/bin/env python3
"""Prints registers, spills and shared memory of every CUDA kernel, from a build log with `ptxas -v` output.

    tools/ptxas_report.py build.log [--all]

Without --all: per architecture the number of kernels, the largest register count, and every kernel that spills
or uses a stack frame. A log with no kernel in it is an error: the report would be empty for the wrong reason.
"""

import argparse
import re
import subprocess
import sys


def kernels(text):
    """Rows (architecture, mangled name, registers, stack, spilled, shared)."""
    pattern = re.compile(
        r"Compiling entry function '(?P<name>[^']+)' for '(?P<arch>\w+)'.*?"
        r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
        r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)", flags=re.S)
    for m in pattern.finditer(text):
        shared = re.search(r"(\d+) bytes smem", m["rest"])
        yield (m["arch"], m["name"], int(m["registers"]), int(m["stack"]), int(m["stores"]) + int(m["loads"]),
               int(shared[1]) if shared else 0)


def short_names(names):
    """Readable kernel names, without return type and arguments."""
    try:
        output = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
        names = output.stdout.splitlines()
    except OSError:
        pass
    return [re.sub(r"\(anonymous namespace\)::|segprior::|^void ", "", n).split("(")[0] for n in names]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log")
    parser.add_argument("--all", action="store_true", help="list every kernel")
    arguments = parser.parse_args()
    with open(arguments.log, errors="replace") as log:
        rows = sorted(set(kernels(log.read())))
    if not rows:
        print("no kernel in the log")
        return 1
    rows = [(r[0], name, *r[2:]) for r, name in zip(rows, short_names([r[1] for r in rows]))]
    for arch in sorted({r[0] for r in rows}):
        of_arch = [r for r in rows if r[0] == arch]
        listed = [r for r in of_arch if arguments.all or r[3] or r[4]]
        most = max(of_arch, key=lambda r: r[2])
        print(f"{arch}: {len(of_arch)} kernels, at most {most[2]} registers ({most[1]}), "
              f"{sum(r[4] > 0 for r in of_arch)} with spills")
        for _, name, registers, stack, spilled, shared in listed:
            print(f"  {registers:3} registers {stack:5} B stack {spilled:5} B spilled {shared:6} B shared  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
