#!/usr/bin/env python3
"""Compares two result files of perf/bench.py: new time / old time, per measurement that both have.

    perf/compare.py old.jsonl new.jsonl [--threshold 1.1]

Below 1 the new one is faster. Rows of rivals show how far the machine itself has changed: if torch became slower
by as much, the library did not. The exit status is 1 if one of the library's rows is slower than the threshold.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

KEY = ("entry", "operator", "what", "shape", "dtype", "iterations", "eps", "lam", "w_max", "residual_target")
KEY += ("who", "threads")


def read(path: Path) -> tuple[dict[str, Any], dict[tuple[Any, ...], dict[str, Any]]]:
    """(the machine's row, the timed rows by what they measure)."""
    machine: dict[str, Any] = {}
    rows = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("entry") == "machine":
            machine = row
        elif "median_ms" in row:
            # The iterations of convergence, softcut and proposals are a result, not part of the question.
            counted = any(k in row for k in ("eps", "w_max", "violation_voxels"))
            rows[tuple(None if k == "iterations" and counted else row.get(k) for k in KEY)] = row
    return machine, rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--threshold", type=float, default=1.1, help="slower than this is a regression; default 1.1")
    options = parser.parse_args()
    (old_machine, old), (new_machine, new) = read(options.old), read(options.new)
    for name, machine in (("old", old_machine), ("new", new_machine)):
        described = [f"{k} {machine[k]}" for k in ("commit", "device", "threads", "copy_gb_per_s") if k in machine]
        print(f"{name}: {', '.join(described) or 'no row about the machine'}")
    if old_machine.get("device") != new_machine.get("device"):
        print("the devices differ: the ratios compare machines, not commits")
    print(f"\n{'entry':<36}{'shape':<20}{'who':<40}{'old ms':>10}{'new ms':>10}{'median':>8}{'min':>8}")
    slower = []
    for key, row in new.items():
        if key not in old:
            continue
        before = old[key]
        ratio, ratio_min = row["median_ms"] / before["median_ms"], row["min_ms"] / before["min_ms"]
        regressed = row["who"].startswith(("segprior", "accelerated")) and min(ratio, ratio_min) > options.threshold
        slower += [key] if regressed else []
        what = ", ".join(row[k] for k in ("entry", "what") if k in row)
        print(
            f"{what[:35]:<36}{row['shape']:<20}{row['who']:<40}{before['median_ms']:>10.4g}{row['median_ms']:>10.4g}"
            f"{ratio:>8.2f}{ratio_min:>8.2f}{'  SLOWER' if regressed else ''}"
        )
    missing = len([k for k in old if k not in new]), len([k for k in new if k not in old])
    print(f"\n{len(slower)} slower; only in old: {missing[0]}, only in new: {missing[1]}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
