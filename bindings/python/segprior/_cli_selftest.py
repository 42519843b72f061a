"""The command `segprior selftest`: does this installation compute what it should, on every device?"""

from __future__ import annotations

import argparse
import time
from typing import Any, Callable

from ._cli_device import Place, places
from .errors import NotSupportedError, SegpriorError

_FORWARD_TOLERANCE = 1e-9  # float64, a few hundred voxels, tens of iterations: rounding is below 1e-13
_DERIVATIVE_TOLERANCE = 1e-6  # central differences are good to about 1e-9


def add_selftest(commands: Any) -> None:
    p = commands.add_parser(
        "selftest",
        help="check results and gradients of every operator on every device, in seconds",
        description="Computes tiny problems with every operator on every device, compares the results with "
        "known ones and the gradients with differences. Exit code 1 if one is wrong.",
    )
    p.add_argument("--device", help="cpu or cuda:N (all)")
    p.set_defaults(run=_selftest)


def _selftest(args: argparse.Namespace) -> int:
    from ._selftest_cases import CASES  # NumPy's work at import is for this command alone

    devices, left_out = places(args.device)
    print(f"{'device':8} {'check':29} {'forward':>9} {'gradient':>9} {'ms':>6}  result")
    failed = passed = 0
    for place in devices:
        for name, case in CASES.items():
            text, is_right = check(place, case)
            passed, failed = passed + (is_right is True), failed + (is_right is False)
            print(f"{place.name:8} {name:29} {text}", flush=True)
    for text in left_out:
        print(text)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def check(place: Place, case: Callable[[Place], Any]) -> tuple[str, bool | None]:
    """Runs a case; its line of the table, and whether it passed (None: this build cannot do it)."""
    began = time.perf_counter()
    try:
        forward, derivative = case(place)
    except NotSupportedError as error:
        return f"{'':26}  not available: {error}", None
    except (SegpriorError, ArithmeticError, RuntimeError) as error:
        return f"{'':26}  FAILED: {type(error).__name__}: {error}", False
    milliseconds = 1e3 * (time.perf_counter() - began)
    # `not <=`: NaN fails.
    is_right = forward <= _FORWARD_TOLERANCE and (derivative is None or derivative <= _DERIVATIVE_TOLERANCE)
    gradient = "" if derivative is None else f"{derivative:.1e}"
    return f"{forward:9.1e} {gradient:>9} {milliseconds:6.0f}  {'passed' if is_right else 'FAILED'}", is_right
