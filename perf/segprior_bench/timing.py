"""Clocks, races between contenders, and the copy bandwidth that they are held against.

Contenders take turns, round by round, so that whatever else the machine does slows all of them alike. The
median and the minimum of all runs are kept.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Sequence

import numpy as np

MAX_RUNS = 20  # of one contender in one round


@dataclasses.dataclass
class Contender:
    """`calls`: the same work on several input sets, taken in turn; one set: the caches stay warm."""

    name: str
    calls: Sequence[Callable[[], Any]]
    wall_clock: bool = False  # on CUDA: it works on a stream of its own and waits for the result itself
    samples: list[float] = dataclasses.field(default_factory=list)  # seconds

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def best(self) -> float:
        return min(self.samples)


def _time_cpu(call: Callable[[], Any], _: Contender) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _time_cuda(call: Callable[[], Any], contender: Contender) -> float:
    import torch

    torch.cuda.synchronize()
    if contender.wall_clock:
        return _time_cpu(call, contender)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def timer(device: str) -> Callable[[Callable[[], Any], Contender], float]:
    return _time_cuda if device == "cuda" else _time_cpu


def race(contenders: Sequence[Contender], device: str, rounds: int, turn: float) -> None:
    """Fills `samples`. A turn lasts about `turn` seconds, and at least one run."""
    measure = timer(device)
    estimate = {}
    for contender in contenders:  # warm-up; the last of these runs says how many fit into a turn
        for call in contender.calls:
            measure(call, contender)
        estimate[contender.name] = measure(contender.calls[0], contender)
    for _ in range(rounds):
        for contender in contenders:
            runs = min(max(int(turn / max(estimate[contender.name], 1e-9)), 1), MAX_RUNS)
            for _ in range(runs):
                call = contender.calls[len(contender.samples) % len(contender.calls)]
                contender.samples.append(measure(call, contender))


def copy_bandwidth(device: str, threads: int) -> float:
    """Bytes per second of a large copy, read and written bytes both counted."""
    if device == "cuda":
        import torch

        source = torch.randn(1 << 28, device=device)
        target = torch.empty_like(source)
        copy = Contender("copy", [lambda: target.copy_(source)])
        race([copy], device, 3, 0.02)
        return 2 * source.nbytes / copy.best
    source = np.random.default_rng(0).standard_normal(1 << 24)  # 128 MiB, more than any cache here
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads)))
    with ThreadPoolExecutor(threads) as pool:
        # np.copyto releases the interpreter lock.
        copy = Contender("copy", [lambda: list(pool.map(lambda pair: np.copyto(*pair), parts))])
        race([copy], device, 5, 0.1)
    return 2 * source.nbytes / copy.best
