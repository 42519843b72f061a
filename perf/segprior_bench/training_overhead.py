"""What a call of segprior.torch costs beyond the call of the C function, on problems that take no time themselves."""

from __future__ import annotations

import statistics
import time
from typing import Any, Callable, Iterator

import torch
from segprior import TV, ThresholdDynamics, Volume
from segprior import torch as priors
from segprior.torch import losses
from torch.utils._python_dispatch import TorchDispatchMode

from . import ours, problem
from .losses_ours import LossCall
from .losses_problem import LossProblem
from .softcut_ours import SoftcutCall
from .softcut_problem import SoftcutProblem

SHAPE = "1x3x16x16"
TURN = 20  # calls between two readings of the clock
Case = tuple[str, str, Callable[[], Any], Callable[[], Any]]  # who, what, torch's call, the C call


class _NothingFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(grad)


@torch.library.custom_op("segprior_bench::nothing", mutates_args=())
def _nothing(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


_nothing.register_autograd(lambda ctx, grad: torch.empty_like(grad))


def _floors() -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Calls that compute nothing, or what torch itself is quick at: what no layer in Python goes below."""
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    grad = torch.randn(1, 3, 16, 16)
    floors: list[tuple[str, Callable[[], torch.Tensor]]] = [
        ("torch.autograd.Function without work", lambda: _NothingFunction.apply(x)),
        ("torch.library.custom_op without work", lambda: _nothing(x)),
        ("torch.softmax", lambda: x.softmax(1)),
    ]
    for who, call in floors:
        yield who, "forward", _without_gradients(call)
        yield who, "forward + backward", lambda call=call: torch.autograd.grad(call(), x, grad)


def _without_gradients(call: Callable[[], Any]) -> Callable[[], Any]:
    def forward() -> Any:
        with torch.no_grad():
            return call()

    return forward


def _softmax_cases(method: str, iterations: int) -> Iterator[Case]:
    given = problem.parse(SHAPE, method, iterations=iterations)
    features, grad_u = torch.from_numpy(given.features).requires_grad_(), torch.from_numpy(given.grad_u)
    more: dict[str, Any] = {"init_eps": problem.METHODS[method].init_eps}
    if "tv" in given.priors:
        more["tv"] = TV(given.lam)
    if "td" in given.priors:
        more["td"] = ThresholdDynamics(given.lam, problem.TD_SIZE, problem.TD_SIGMA)
    if "volume" in given.priors:
        more["volume"] = Volume(torch.from_numpy(given.volume))

    def call() -> torch.Tensor:
        return priors.softmax(features, given.eps, iterations, **more)

    who = f"softmax {method}, T = {iterations}"
    yield who, "forward", _without_gradients(call), ours.Call(given, "cpu", 1)
    kept = max(1, round(iterations**0.5))  # as segprior.torch does
    c_call = ours.Call(given, "cpu", 1, backward=True, checkpoint=kept)
    yield who, "forward + backward", lambda: torch.autograd.grad(call(), features, grad_u), c_call


def _softcut_cases() -> Iterator[Case]:
    batch, classes, *spatial = (int(n) for n in SHAPE.split("x"))
    given = SoftcutProblem((batch * classes, 1, *spatial), 10.0, "float32", 1e-3)
    scores = torch.from_numpy(given.scores).requires_grad_()
    edges = tuple(torch.from_numpy(w).requires_grad_() for w in given.edges)
    grad_x = torch.from_numpy(given.grad_x)

    def call() -> torch.Tensor:
        return priors.softcut(scores, edges, solver="jacobi", tol=0.5, backward_tol=0.5)

    settings = (given, "cpu", 1, "jacobi", 0.5)
    yield "softcut", "forward", _without_gradients(call), SoftcutCall(*settings)
    yield (
        "softcut",
        "forward + backward",
        lambda: torch.autograd.grad(call(), (scores, *edges), grad_x),
        SoftcutCall(*settings, backward=True),
    )


def _loss_cases() -> Iterator[Case]:
    given = LossProblem(tuple(int(n) for n in SHAPE.split("x")), "CE + Dice")
    scores, labels = torch.from_numpy(given.scores).requires_grad_(), torch.from_numpy(given.labels)
    yield (
        "losses.combined, CE + Dice",
        "forward + backward",
        lambda: torch.autograd.grad(losses.combined(scores, labels, cross_entropy=1.0, dice=1.0), scores),
        LossCall(given, "cpu", 1),
    )


class _Recorder(TorchDispatchMode):
    """Keeps the calls of the library's operators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "segprior":
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def _operators_of(call: Callable[[], Any]) -> Callable[[], Any]:
    """The calls of the operators alone, with the arguments that `call` prepares for them, and without autograd."""
    with _Recorder() as seen:
        call()
    if not seen.calls:
        raise RuntimeError("no operator of the library was called")

    def operators() -> None:
        with torch.no_grad():
            for operator, arguments in seen.calls:
                operator(*arguments)

    return operators


def _times(calls: list[Callable[[], Any]], seconds: float) -> list[tuple[float, float]]:
    """(median, minimum) of each in microseconds; the calls take turns for so long.

    Of the processor: with one thread an idle machine's clock says the same, and a busy one's would say more.
    """
    samples: list[list[float]] = [[] for _ in calls]
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(samples[0]) < 3:
        for call, kept in zip(calls, samples):
            began = time.process_time()
            for _ in range(TURN):
                call()
            kept.append(1e6 * (time.process_time() - began) / TURN)
    return [(statistics.median(kept[1:]), min(kept[1:])) for kept in samples]


def measure(seconds: float) -> Iterator[dict[str, Any]]:
    """A row per case, each measured for so many seconds with one thread.

    `c_us`: the C functions through ctypes with everything prepared, which is itself a microsecond or two a call
    slower than from C. `operators_us`: torch.ops.segprior.* alone, without the reading of the arguments and without
    autograd.
    """
    torch.set_num_threads(1)
    common = dict(entry="torch_overhead", shape=SHAPE)
    for who, what, call in _floors():
        ((median, least),) = _times([call], seconds)
        yield dict(**common, who=who, what=what, torch_us=median, torch_min_us=least)
    cases = [c for method in ("tv_softmax", "vptv", "std") for t in (1, 3, 5) for c in _softmax_cases(method, t)]
    for who, what, call, c_call in [*cases, *_softcut_cases(), *_loss_cases()]:
        (whole, c, operators) = _times([call, c_call, _operators_of(call)], seconds)
        yield dict(
            **common,
            who=who,
            what=what,
            torch_us=whole[0],
            c_us=c[0],
            overhead_us=whole[0] - c[0],
            overhead_min_us=whole[1] - c[1],
            operators_us=operators[0],
        )
