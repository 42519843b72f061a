"""A race of contenders whose results are compared with ours before anything is timed."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

from .races import Bench, _reason, _release_memory
from .timing import Contender, race


@dataclasses.dataclass
class Entrant:
    """`make` builds the call that is timed."""

    name: str
    make: Callable[[], Callable[[], Any]] | None = None
    reason: str | None = None  # why it does not race
    is_ours: bool = False
    difference: float | None = None


Compare = Callable[[Any, Any], tuple[float, bool]]  # our result, another's: the difference, whether it is within bounds


def run(
    bench: Bench,
    common: dict[str, Any],
    entrants: list[Entrant],
    compare: Compare,
    keep: Callable[[Any], Any],
    scale: tuple[str, float],
    least_bytes: int | None = None,
    describe: Callable[[Any], dict[str, Any]] = lambda call: {},
) -> list[dict[str, Any]]:
    """Returns the rows. The first entrant is ours, and every other is compared with it.

    `keep` copies a result to the host. `scale`: name of a row's field and the number of things to divide the time by.
    `describe`: more fields of a row, from the call after it was timed.
    """
    first = entrants[0]
    reference, contenders, calls = None, {}, {}
    for entrant in entrants:
        if entrant.reason is None and bench.out_of_time() and entrant is not first:
            entrant.reason = "out of time"
        if entrant.reason is not None or entrant.make is None:
            continue
        try:
            call = entrant.make()
            result = keep(call())
            if entrant is first:
                reference = result
            else:
                entrant.difference, agrees = compare(reference, result)
                if not agrees:
                    entrant.reason = f"its result differs: {entrant.difference:.1e}"
                    continue
        except Exception as error:  # a rival's failure is a result, not ours
            if entrant is first:
                raise
            entrant.reason = _reason(error)
            _release_memory()
            continue
        calls[entrant.name] = call
        contenders[entrant.name] = Contender(entrant.name, [call])
    race(list(contenders.values()), bench.device, bench.rounds, 0.1 if bench.device == "cuda" else 0.4)
    rows = []
    theirs = [e.name for e in entrants if not e.is_ours and e.name in contenders]
    fastest = contenders[first.name]
    for entrant in entrants:
        if entrant.name not in contenders:
            continue
        c = contenders[entrant.name]
        ratios = {n: round(contenders[n].median / c.median, 2) for n in theirs} if entrant.is_ours else None
        share = None if least_bytes is None else 100 * least_bytes / c.median / bench.copy_rate
        rows.append(
            bench.report.row(
                **common,
                who=entrant.name,
                median_ms=c.median * 1e3,
                min_ms=c.best * 1e3,
                runs=len(c.samples),
                **{scale[0]: c.median * 1e9 / scale[1]},
                copy_percent=share,
                times_segprior=c.median / fastest.median,
                ratio_to=ratios,
                difference=entrant.difference,
                **describe(calls[entrant.name]),
            )
        )
    rows += [bench.report.row(**common, who=e.name, not_run=e.reason) for e in entrants if e.reason]
    contenders.clear()
    calls.clear()
    _release_memory()
    return rows
