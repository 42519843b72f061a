#!/usr/bin/env python3
"""Weak supervision: a small model trained from 0.1 % labelled pixels and what is known of the object's size.

Remakes the comparison of Table 1 of Kervadec et al., "Constrained-CNN losses for weakly supervised segmentation"
(arXiv 1805.04628), on synthetic images: partial cross entropy alone, with image tags, with common or individual size
bounds, each as a penalty and as Lagrangian proposals, and full supervision. All losses, gradients and scores are
those of libsegprior; the model is a perceptron in NumPy. Needs the package with its extras `cli`, `test` (`make env`).

    .venv/bin/python perf/weak_supervision.py -o out

Writes weak_supervision.md (tables), weak_supervision.json (every run) and weak_supervision.png to the output folder.
The same seeds give the same figures on one machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Sequence

# One thread a process: as many processes as cores run at a time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np  # noqa: E402

from weak_supervision import picture, proposals, training  # noqa: E402

TITLES = {
    "object": "Labels in the object only, none in images without it",
    "both": "Labels in object and background",
}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder (out)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of images and models (0 1 2)")
    parser.add_argument("--labels", nargs="+", choices=list(TITLES), default=list(TITLES), help="where they are (all)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="runs at a time (all cores)")
    for field in dataclasses.fields(training.Settings):
        if field.name not in ("seed", "both"):
            kind = type(field.default)
            parser.add_argument(
                f"--{field.name.replace('_', '-')}", type=kind, default=field.default, help=f"({field.default})"
            )
    return parser.parse_args(arguments)


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation; of a single value that alone."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def table_of_runs(runs: list[training.Run]) -> str:
    lines = ["| method | Dice | mean IoU | predicted / true size | training |", "|---|---|---|---|---|"]
    for method in training.METHODS:
        those = [r for r in runs if r.method == method.name]
        dice, iou = (mean_and_spread([getattr(r, key) for r in those]) for key in ("dice", "mean_iou"))
        size = statistics.mean(r.size for r in those)
        seconds = statistics.median(r.seconds for r in those)
        lines.append(f"| {method.name} | {dice} | {iou} | {size:.2f} | {seconds:.1f} s |")
    return "\n".join(lines)


def table_of_proposals(found: list[proposals.Comparison]) -> str:
    headings = "logits", "proposal by", "steps: mean, most", "violation left"
    headings += "max. difference of Q", "pixels decided otherwise", "time"
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for c in found:
        lines.append(
            f"| {c.logits} | {c.way} | {c.steps:.1f}, {c.most_steps} | {c.violation:.2g} px "
            f"| {c.difference:.1e} | {100 * c.differing:.2f} % | {1e3 * c.seconds:.3g} ms |"
        )
    return "\n".join(lines)


def as_json(item: Any) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(item).items() if not isinstance(v, np.ndarray)}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    names = {f.name for f in dataclasses.fields(training.Settings)}
    base = training.Settings(**{k: v for k, v in vars(options).items() if k in names})
    settings = [
        dataclasses.replace(base, both=labels == "both", seed=seed)
        for labels, seed in itertools.product(options.labels, options.seeds)
    ]
    began = time.monotonic()
    # Fresh processes: a forked one would share the state of OpenMP.
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(training.run, m, s) for s in settings for m in training.METHODS]
        runs = [job.result() for job in jobs]
    compared = proposals.compare(settings[0])  # alone, since it is timed

    text = ""
    for labels in options.labels:
        text += f"{TITLES[labels]}:\n\n{table_of_runs([r for r in runs if r.labels == labels])}\n\n"
    text += f"Two ways to the proposal, {base.train} images, {proposals.METHOD.bounds} bounds:\n\n"
    text += table_of_proposals(compared) + "\n"
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "weak_supervision.md").write_text(text, encoding="utf-8")
    result = {
        "settings": {k: v for k, v in dataclasses.asdict(base).items() if k not in ("seed", "both")},
        "seeds": options.seeds,
        "runs": [as_json(r) for r in runs],
        "proposals": [as_json(c) for c in compared],
    }
    (options.output / "weak_supervision.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _, validation = training.make_data(settings[0])
    picture.draw(options.output / "weak_supervision.png", validation, runs[: len(training.METHODS)])
    print(f"{options.output}/weak_supervision.{{md,json,png}}, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
