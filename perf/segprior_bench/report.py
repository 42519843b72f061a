"""Results as JSON lines, written as they come, and as a readable table."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[2]


def commit() -> str:
    """Of the measured tree; "-dirty" if the library's sources differ from it."""
    try:
        def git(*arguments: str) -> str:
            done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
            return done.stdout.strip()

        changed = git("status", "--porcelain", "--", "kernels", "capi", "include")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        archived = ROOT / "COMMIT"  # a source archive
        return archived.read_text().strip()[:12] if archived.exists() else "unknown"


def device_name(device: str) -> str:
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def default_output(device: str) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d")
    return ROOT / "perf" / "results" / f"{slug}-{today}.jsonl"


class Report:
    def __init__(self, output: Path, common: dict[str, Any]) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = open(output, "w", encoding="utf-8")
        self._common = common

    def row(self, **fields: Any) -> dict[str, Any]:
        """Writes one line; None values are left out, floats rounded to 5 digits."""
        line = {**self._common, **fields}
        line = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in line.items() if v is not None}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        return line

    def close(self) -> None:
        self._file.close()


# key, heading, width, format
_RACE = [
    ("who", "", 38, "{}"),
    ("median_ms", "median ms", 10, "{:.4g}"),
    ("min_ms", "min ms", 10, "{:.4g}"),
    ("runs", "runs", 5, "{}"),
    ("ns_per_pxc_iteration", "ns/pxc/it", 10, "{:.3g}"),
    ("copy_percent", "% copy", 7, "{:.0f}"),
    ("times_segprior", "x segprior", 11, "{:.2f}"),
    ("difference", "difference", 11, "{:.1e}"),
]
_CONVERGENCE = [
    ("who", "", 38, "{}"),
    ("iterations", "iterations", 11, "{}"),
    ("median_ms", "median ms", 10, "{:.4g}"),
    ("difference", "max|u-u*|", 11, "{:.1e}"),
]
_MEMORY = [
    ("who", "", 38, "{}"),
    ("peak_extra_mb", "peak extra MB", 14, "{:.4g}"),
    ("queried_mb", "queried MB", 11, "{:.4g}"),
    ("bytes_per_pxc", "bytes/pxc", 10, "{:.4g}"),
    ("times_segprior", "x segprior", 11, "{:.2f}"),
]
_SOFTCUT = [
    ("who", "", 38, "{}"),
    ("median_ms", "median ms", 10, "{:.4g}"),
    ("min_ms", "min ms", 10, "{:.4g}"),
    ("runs", "runs", 5, "{}"),
    ("iterations", "iterations", 11, "{}"),
    ("residual", "residual", 10, "{:.1e}"),
    ("ns_per_voxel", "ns/voxel", 10, "{:.4g}"),
    ("times_segprior", "x segprior", 11, "{:.2f}"),
]
_LOSSES = [(key, *rest) for key, *rest in _RACE if key != "ns_per_pxc_iteration"]
_LOSSES.insert(4, ("ns_per_pxc", "ns/pxc", 10, "{:.3g}"))
_PROPOSALS = [column for column in _LOSSES if column[0] != "copy_percent"]
_PROPOSALS += [
    ("iterations", "iterations", 11, "{}"),
    ("violation_voxels", "violation", 10, "{:.2g}"),
]
_COMPONENTS = [column for column in _SOFTCUT if column[0] not in ("iterations", "residual")]
_COLUMNS = {
    **{"losses": _LOSSES, "proposals": _PROPOSALS, "components": _COMPONENTS},
    **{"convergence": _CONVERGENCE, "memory": _MEMORY},
    **{"softcut": _SOFTCUT, "softcut_backward": _SOFTCUT, "softcut_growth": _SOFTCUT},
}


def print_table(title: str, entry: str, rows: list[dict[str, Any]]) -> None:
    columns = _COLUMNS.get(entry, _RACE)
    print(f"\n{title}")
    print("  " + "".join(h.ljust(w) if i == 0 else h.rjust(w) for i, (_, h, w, _) in enumerate(columns)))
    left_out: dict[str, list[str]] = {}
    for row in rows:
        if "not_run" in row:
            left_out.setdefault(row["not_run"], []).append(row["who"])
            continue
        cells = [f.format(row[k]) if k in row else "-" for k, _, _, f in columns]
        print("  " + cells[0].ljust(columns[0][2]) + "".join(c.rjust(k[2]) for c, k in zip(cells[1:], columns[1:])))
    for reason, names in left_out.items():
        print(f"  not run ({reason}): {'; '.join(names)}")
    sys.stdout.flush()


def load_average() -> float | None:
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
