"""The command `segprior bench`: how fast the operators are on this machine."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

import numpy as np

from . import losses, metrics
from ._cli_device import Place, places
from ._version import __version__
from .errors import InvalidValueError
from .priors import TV, ThresholdDynamics, Volume
from .softcut import softcut
from .softmax import softmax

_DESCRIPTION = """\
Times every operator, Python call included, on normally distributed float32 data: the median of as many runs
as fit into --seconds, after a warm-up. ns/vci: nanoseconds per voxel of the batch, class and iteration. GB/s:
the least traffic that the operation needs (inputs read once and outputs written once in each iteration)
divided by the time; no figure where the work depends on the data.
"""
_FLOAT = 4  # bytes
_LEAST_RUNS = 3


class Task(NamedTuple):
    """One line of the benchmark."""

    operator: str
    direction: str  #: "forward" or "backward"
    run: Callable[[], Any]
    iterations: int = 1
    bytes_per_vci: float | None = None  #: least traffic per voxel, class and iteration


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split("x"))
    except ValueError:
        shape = ()
    if not 3 <= len(shape) <= 5 or min(shape) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not BATCHxCLASSESxSIZE..., as 8x4x256x256 or 1x4x64x64x64"
        )
    return shape


def add_bench(commands: Any) -> None:
    p = commands.add_parser(
        "bench",
        help="time the operators on this machine",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--shape", type=_shape, default=(8, 4, 256, 256), help="batch, classes, axes (8x4x256x256)"
    )
    p.add_argument("--device", help="cpu or cuda:N (all)")
    p.add_argument("--seconds", type=float, default=0.5, help="time per line (0.5)")
    p.add_argument("--threads", type=int, help="CPU threads (all)")
    p.add_argument("--json", action="store_true", help="a line of JSON each instead of a table")
    p.set_defaults(run=_bench)


def _bench(args: argparse.Namespace) -> int:
    if not args.seconds > 0:
        raise InvalidValueError(f"seconds = {args.seconds}; it must be > 0")
    devices, left_out = places(args.device)
    if not args.json:
        print(f"{'device':8} {'operator':22} {'pass':9} {'ms':>9} {'ns/vci':>9} {'GB/s':>7}")
    for place in devices:
        for task in tasks(place, args.shape, args.threads):
            row = measure(place, task, args.shape, args.seconds)
            print(json.dumps(row) if args.json else _line(row), flush=True)
    if not args.json:
        print("\n".join(left_out), end="\n" if left_out else "")
    return 0


def measure(place: Place, task: Task, shape: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """Runs a task for about `seconds`; the line of JSON."""
    times: list[float] = []
    task.run()
    place.wait()
    stop = time.perf_counter() + seconds
    while len(times) < _LEAST_RUNS or time.perf_counter() < stop:
        began = time.perf_counter()
        task.run()
        place.wait()
        times.append(time.perf_counter() - began)
    median = statistics.median(times)
    work = math.prod(shape) * task.iterations
    moved = None if task.bytes_per_vci is None else work * task.bytes_per_vci
    return {
        "version": __version__,
        "device": place.name,
        "operator": task.operator,
        "pass": task.direction,
        "shape": list(shape),
        "iterations": task.iterations,
        "runs": len(times),
        "seconds": median,
        "ns_per_voxel_class_iteration": 1e9 * median / work,
        "gb_per_s": None if moved is None else moved / median / 1e9,
    }


def _line(row: dict[str, Any]) -> str:
    rate = "" if row["gb_per_s"] is None else f"{row['gb_per_s']:.1f}"
    name = row["operator"] + (f", T = {row['iterations']}" if row["iterations"] > 1 else "")
    return (
        f"{row['device']:8} {name:22} {row['pass']:9} {1e3 * row['seconds']:9.3f} "
        f"{row['ns_per_voxel_class_iteration']:9.3f} {rate:>7}"
    )


def tasks(place: Place, shape: tuple[int, ...], threads: int | None) -> Iterator[Task]:
    """All lines for one device, each made when it is asked for: one problem is in memory at a time."""
    random = np.random.default_rng(0)
    batch, classes, *spatial = shape
    features = place.put(random.standard_normal(shape, np.float32))
    grad = place.put(random.standard_normal(shape, np.float32))
    labels = place.put(random.integers(0, classes, (batch, *spatial), np.uint8))
    axes = len(spatial)
    yield from _softmax_tasks(features, grad, axes, _shares(shape), threads)
    yield from _softcut_tasks(place, shape, features, grad, threads)

    def loss() -> Any:
        return losses.combined(features, labels, cross_entropy=1.0, dice=1.0, threads=threads)

    label_bytes = 1 / classes
    yield Task("cross entropy + Dice", "forward", loss, 1, _FLOAT + label_bytes)
    done = loss()
    yield Task("cross entropy + Dice", "backward", done.backward, 1, 2 * _FLOAT + label_bytes)
    lower = [0.9 * share for share in _shares(shape)]
    yield Task("proposal", "forward", lambda: losses.lagrangian_proposal(features, lower, threads=threads))
    yield Task(
        "confusion matrix",
        "forward",
        lambda: metrics.confusion_matrix(labels, scores=features, classes=classes, threads=threads),
        1,
        _FLOAT + label_bytes,
    )
    yield Task(
        "components",
        "forward",
        lambda: metrics.components(labels, threads=threads),
        1,
        (1 + _FLOAT) / classes,
    )


def _shares(shape: tuple[int, ...]) -> list[float]:
    """[I] volumes in voxels: unequal, so that the prior has work to do."""
    weights = np.linspace(1.0, 2.0, shape[1])
    return list(weights / weights.sum() * math.prod(shape[2:]))


def _softmax_tasks(
    features: Any, grad: Any, axes: int, volume: list[float], threads: int | None
) -> Iterator[Task]:
    tv, td = TV(1.0), ThresholdDynamics(1.0)
    # Least traffic: the features read, and the iterated state (u, or the dual of TV) read and written; the
    # adjoint reads state and features, reads and writes the gradients of both.
    plain, dual = (3 * _FLOAT, 6 * _FLOAT), ((1 + 2 * axes) * _FLOAT, 3 * (1 + axes) * _FLOAT)
    settings: dict[str, tuple[int, tuple[float, float], dict[str, Any]]] = {
        "softmax": (1, (2 * _FLOAT, 3 * _FLOAT), {}),
        "TV-softmax": (30, dual, {"tv": tv}),
        "VPTV-softmax": (30, dual, {"tv": tv, "volume": Volume(volume)}),
        "STD-softmax": (10, plain, {"td": td}),
    }
    for name, (iterations, moved, priors) in settings.items():

        def forward(iterations: int = iterations, priors: dict[str, Any] = priors) -> Any:
            return softmax(features, 1.0, iterations, threads=threads, duals=False, **priors)

        yield Task(name, "forward", forward, iterations, moved[0])
        done = forward()
        yield Task(
            name, "backward", lambda done=done: done.backward(grad, wanted=["features"]), iterations, moved[1]
        )


def _softcut_tasks(
    place: Place, shape: tuple[int, ...], scores: Any, grad: Any, threads: int | None
) -> Iterator[Task]:
    random = np.random.default_rng(1)
    edges = []
    for axis in range(2, len(shape)):
        extents = [n - (a == axis) if a != 1 else 1 for a, n in enumerate(shape)]
        edges.append(place.put(10 * random.random(extents, np.float32)))

    def forward() -> Any:
        return softcut(scores, tuple(edges), tol=1e-4, backward_tol=1e-4, threads=threads)

    yield Task("softcut, tol 1e-4", "forward", forward)
    done = forward()
    yield Task("softcut, tol 1e-4", "backward", lambda: done.backward(grad))
