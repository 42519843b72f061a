"""Entry "memory": peak extra memory of forward and unrolled backward, each in a fresh process.

The process makes the inputs, runs a tiny problem once (libraries and thread pools allocate too), lets the kernel
forget the peak of its resident set, runs the problem, and reports peak minus what was resident before: outputs,
gradients, scratch and stored state, but not the inputs. `queried`: what the library's size queries say
(workspace + saved); for autograd the bytes of the distinct storages that it saves for backward.

Autograd is measured twice: as it is, and with every tensor in a mapping of its own. glibc's heap cannot reuse
the gaps that aligned temporaries leave between saved tensors, which triples the peak; that is what a user sees,
but not what the algorithm needs.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import ours
from .problem import Problem, parse
from .races import AUTOGRAD_BYTES, MEMORY_SHARE, Bench, available_memory


def _resident(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, field
    return int(found[1]) * 1024


def _ours(problem: Problem, threads: int, checkpoint: int) -> int:
    call = ours.Call(problem, threads=threads, backward=True, checkpoint=checkpoint)
    call()
    return call.workspace_bytes + call.saved_bytes


def _autograd(problem: Problem, threads: int) -> int:
    import torch

    from rivals import torch_eager

    torch.set_num_threads(threads)
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    call = torch_eager.make(problem, "cpu", True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(storages.values())


def child(who: str, label: str, threads: int) -> dict[str, Any]:
    def work(problem: Problem) -> int:
        if who == "autograd":
            return _autograd(problem, threads)
        return _ours(problem, threads, int(who))

    problem = parse(label)
    assert problem.features.size and problem.grad_u.size and problem.volume.size  # made now, not in the run
    work(Problem((1, 2, *[4] * problem.axes)))
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    queried = work(problem)
    return dict(peak_extra=_resident("VmHWM") - before, queried=queried)


def run(bench: Bench, problem: Problem) -> list[dict[str, Any]]:
    common = dict(entry="memory", operator=problem.operator, shape=problem.label, dtype=problem.dtype)
    common |= dict(what="forward with saved + backward", iterations=problem.iterations)
    default = max(1, round(math.sqrt(problem.iterations)))
    contenders = {f"segprior, checkpoint every {default}": str(default), "segprior, checkpoint every 1": "1"}
    contenders["torch eager, autograd"] = "autograd"
    contenders["torch eager, autograd, no heap gaps"] = "autograd"
    rows: list[dict[str, Any]] = []
    first = None
    for name, who in contenders.items():
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        needed = AUTOGRAD_BYTES * problem.size * problem.iterations if who == "autograd" else 0
        if name.endswith("no heap gaps"):
            environment["MALLOC_MMAP_THRESHOLD_"] = "65536"
            needed //= 2
        if needed > MEMORY_SHARE * available_memory():
            reason = f"needs about {needed / 1e9:.0f} GB, {available_memory() / 1e9:.0f} GB are free"
            rows.append(bench.report.row(**common, who=name, not_run=reason))
            continue
        done = subprocess.run(
            [sys.executable, "-m", "segprior_bench.memory", who, problem.label, str(bench.threads)],
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            rows.append(bench.report.row(**common, who=name, not_run=last))
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        first = first or found["peak_extra"]
        rows.append(
            bench.report.row(
                **common,
                who=name,
                peak_extra_mb=found["peak_extra"] / 1e6,
                queried_mb=found["queried"] / 1e6,
                bytes_per_pxc=found["peak_extra"] / problem.size,
                times_segprior=found["peak_extra"] / first,
            )
        )
    return rows


if __name__ == "__main__":
    print(json.dumps(child(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
