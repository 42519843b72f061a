#!/usr/bin/env python3
"""What segprior.torch costs: a call beyond the C function's, and a training step beyond one with plain softmax.

    perf/torch_overhead.py                    # both; a minute or two, two threads for the steps
    perf/torch_overhead.py --only calls       # microseconds a call, one thread
    perf/torch_overhead.py --only steps --threads 1

Prints tables, and writes JSON lines to --output. The machine should be idle. Needs PyTorch; without it, continues in
the environment that perf/make_rivals_env.sh makes.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "bindings" / "python")]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["calls", "steps"])
    parser.add_argument("--output", type=Path, default=Path("out/torch_overhead.jsonl"), metavar="FILE")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the steps (all cores)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each call that is measured (1)")
    parser.add_argument("--size", type=int, default=256, help="side of the steps' images (256)")
    parser.add_argument("--batch", type=int, default=4, help="of the steps (4)")
    parser.add_argument("--width", type=int, default=32, help="of the U-Net's first level (32: half the usual)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each layer (5)")
    return parser.parse_args()


CALLS = [
    ("torch_us", "torch us"),
    ("c_us", "C us"),
    ("overhead_us", "overhead us"),
    ("overhead_min_us", "of minima"),
    ("operators_us", "operators us"),
]
STEPS = [
    ("median_ms", "step ms"),
    ("min_ms", "min ms"),
    ("layer_ms", "layer ms"),
    ("speed_lost_percent", "speed lost %"),
    ("speed_lost_by_layer_percent", "from layer %"),
]


def print_row(row: dict[str, Any] | None, columns: list[tuple[str, str]], title: str) -> None:
    """A row, or (None) the headings."""
    cells = [h if row is None else f"{row[k]:.1f}" if k in row else "-" for k, h in columns]
    print(f"{title:<60}" + "".join(cell.rjust(14) for cell in cells), flush=True)


def main() -> int:
    from segprior_bench.environment import enter

    enter(__file__)
    options = parse_arguments()
    import torch
    from segprior import _ffi
    from segprior_bench import report, training_overhead, training_steps

    began = time.monotonic()
    out = report.Report(options.output, dict(commit=report.commit(), device=report.device_name("cpu")))
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%FT%TZ")
    machine = dict(date=now, load_average=report.load_average(), versions=dict(torch=torch.__version__))
    out.row(entry="machine", library=_ffi.library().version_string, **machine)
    print(f"load average {machine['load_average']}, {now}")
    if options.only != "steps":
        print_row(None, CALLS, "\ncall")
        for row in training_overhead.measure(options.seconds):
            print_row(out.row(threads=1, **row), CALLS, f"{row['who']}: {row['what']}")
    if options.only != "calls":
        torch.set_num_threads(options.threads)
        steps = training_steps.Steps(options.size, options.batch, options.width, rounds=options.rounds)
        print_row(None, STEPS, f"\nstep of a U-Net, {steps.label}, {options.threads} threads")
        for row in training_steps.measure(steps):
            print_row(out.row(threads=options.threads, **row), STEPS, row["who"])
    out.close()
    print(f"\n{options.output}, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
