#!/usr/bin/env python3
"""What the layers do to a network that is trained with them: a small U-Net on synthetic white blood cells.

One network per layer (softmax, TV-, VPTV-, STD-softmax, SS-STD, SoftCut, SoftCut with a backward solve of one
step), from the same start, on the same images in the same order; each is tested on the same new cells, and on these
under more noise. Results and how to read them: docs/training.md. Needs PyTorch, Pillow and SciPy; without PyTorch
it continues in the environment that perf/make_rivals_env.sh makes.

    perf/training.py -o out

Writes training.md (the table), training.jsonl (every run) and training.png to the output folder. The same seeds give
the same figures on one machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Sequence

# One thread a process: as many processes as cores run at a time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "bindings" / "python")]

if TYPE_CHECKING:
    from segprior_bench.training_run import Run, Settings

VARIANTS = ["softmax", "TV", "VPTV", "STD", "SS-STD", "SoftCut", "one-step"]
# Of the rows that the picture shows.
TITLES = {
    "softmax": "softmax",
    "TV-softmax": "TV",
    "VPTV-softmax": "VPTV",
    "VPTV-softmax, mean volumes": "VPTV, mean",
    "STD-softmax": "STD",
    "SS-STD": "SS-STD",
    "SS-STD, centre found": "SS-STD, found",
    "SoftCut": "SoftCut",
    "SoftCut, one-step backward": "SoftCut, 1 step",
}
PICTURED = (0, 1)  # the first test images of the first seed: not chosen by result


def parse_arguments(settings: type[Settings], arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder (out)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[20, 21, 22, 23, 24], help="of cells and networks (20 .. 24)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="(all)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="runs at a time (all cores)")
    for field in dataclasses.fields(settings):
        flag, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        parser.add_argument(flag, type=kind, default=field.default, help=f"({field.default})")
    return parser.parse_args(arguments)


def mean_and_spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and sample standard deviation; of a single value that alone."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def table(runs: list[Run], more_noise: float) -> str:
    """One line per test; "gain" is the mean difference of the mIoU to softmax's in the same seed, and in how many."""
    headings = ["trained with, tested with", "told", "mIoU", "gain, in seeds", "Dice", "outline", "pieces"]
    headings += [f"mIoU, noise {more_noise:g}", "gain, in seeds", "pieces", "CPU per step"]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    base = {r.seed: r for r in runs if r.name == "softmax"}
    for name in dict.fromkeys(r.name for r in runs):
        those = [r for r in runs if r.name == name]
        cells = [name, those[0].told]
        for part in ("scores", "noisy"):
            scores = [getattr(r, part) for r in those]
            cells.append(mean_and_spread([s.mean_iou for s in scores]))
            cells.append(gain(scores, [getattr(base[r.seed], part) for r in those if r.seed in base]))
            if part == "scores":
                cells.append(mean_and_spread([s.dice for s in scores]))
                cells.append(mean_and_spread([s.boundary for s in scores], 2))
            cells.append(mean_and_spread([s.pieces for s in scores], 2))
        cells.append(f"{1e3 * statistics.median(r.step_seconds for r in those):.0f} ms")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def gain(scores: Sequence[Any], base: Sequence[Any]) -> str:
    if len(base) != len(scores) or all(s is b for s, b in zip(scores, base)):
        return ""
    differences = [s.mean_iou - b.mean_iou for s, b in zip(scores, base)]
    return f"{statistics.mean(differences):+.3f}, {sum(d > 0 for d in differences)} of {len(differences)}"


def as_row(run: Run) -> dict[str, Any]:
    fields = {"who": run.name, "told": run.told or None, "seed": run.seed, "loss": run.loss}
    fields |= {"step_ms": 1e3 * run.step_seconds, "gradient_error": run.gradient_error}
    fields |= dataclasses.asdict(run.scores)
    return fields | {f"noisy_{k}": v for k, v in dataclasses.asdict(run.noisy).items()}


def draw(path: Path, settings: Settings, runs: list[Run]) -> None:
    from segprior_bench import training_picture
    from segprior_bench.training_run import test_sets

    shown = [r for r in runs if r.seed == runs[0].seed and r.name in TITLES]
    clean, noisy = test_sets(settings, runs[0].seed)
    rows = [(clean.images[n], clean.truth[n], [r.found[n] for r in shown]) for n in PICTURED]
    rows += [(noisy.images[n], noisy.truth[n], [r.found_noisy[n] for r in shown]) for n in PICTURED]
    training_picture.draw(path, rows, [TITLES[r.name] for r in shown])


def main(arguments: Sequence[str] | None = None) -> int:
    from segprior_bench.environment import enter

    enter(__file__)
    from segprior_bench import report
    from segprior_bench.training_run import Settings, run, test_sets
    from segprior_bench.training_scores import pieces

    options = parse_arguments(Settings, arguments)
    settings = Settings(**{f.name: getattr(options, f.name) for f in dataclasses.fields(Settings)})
    began = time.monotonic()
    options.output.mkdir(parents=True, exist_ok=True)
    common = dict(entry="training", commit=report.commit(), device=report.device_name("cpu"), threads=1)
    out = report.Report(options.output / "training.jsonl", common)
    out.row(**dataclasses.asdict(settings))
    runs: list[Run] = []
    # Fresh processes: a forked one would share the state of OpenMP.
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(run, v, settings, seed) for seed in options.seeds for v in options.variants]
        for job in jobs:
            for found in job.result():
                out.row(**as_row(found))
                print(f"seed {found.seed}  {found.name:<34}  mIoU {found.scores.mean_iou:.3f}", flush=True)
                runs.append(found)
    out.close()
    true_pieces = [pieces(test_sets(settings, seed)[0].truth) for seed in options.seeds]
    text = f"{table(runs, settings.more_noise)}\n\nTrue pieces: {mean_and_spread(true_pieces, 2)}.\n"
    if errors := [r.gradient_error for r in runs if r.gradient_error is not None]:
        text += f"Relative error of the one-step gradient after training: {mean_and_spread(errors, 2)}.\n"
    print(f"\n{text}")
    (options.output / "training.md").write_text(text, encoding="utf-8")
    draw(options.output / "training.png", settings, runs)
    print(f"{options.output}/training.{{md,jsonl,png}}, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
