"""Streams of the losses and metrics, in the manner of test_streams.py, and the frameworks' own helpers.

Arguments are exported while the caller's stream is current: inside the call's own, DLPack would wait for nothing.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import pytest
from losses_problem import make
from test_streams import Recorder, recorder  # noqa: F401 - a fixture

from segprior import _arrays, _call, _ffi, _losses_call, losses, losses_result, metrics
from segprior._frameworks import NumpyFramework, TorchFramework

PROBLEM = make((3, 3, 6, 7))
SCORES, LABELS, MASK = PROBLEM["scores"], PROBLEM["labels"], PROBLEM["mask"]
WEIGHTS = np.ones(3)


@pytest.fixture
def exports(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, Any]]:  # noqa: F811
    """(name, current stream, stream of the work) of every array that is exported."""
    found: list[tuple[str, int, Any]] = []

    def view(array: Any, name: str, stream: Any = None, *more: Any, **named: Any) -> Any:
        found.append((name, recorder.current, stream))
        return _arrays.view(array, name, stream, *more, **named)

    for module in (_call, _losses_call, losses_result):
        monkeypatch.setattr(module, "view", view)
    return found


def combined(**more: Any) -> losses.LossResult:
    given = {name: PROBLEM[name] for name in ("lower", "upper", "mask", "labelled")}
    return losses.combined(
        SCORES, LABELS, dice=1.0, size=1.0, class_weights=WEIGHTS, groups=[0, 1, 0], **given, **more
    )


def test_everything_stays_on_one_stream(recorder: Recorder) -> None:  # noqa: F811
    combined().backward()
    metrics.components(LABELS)
    assert {step[1] for step in recorder.log} == {1}
    assert not recorder.held and not [step for step in recorder.log if step[0] == "wait"]


def test_backward_runs_on_the_callers_stream(recorder: Recorder, exports: Any) -> None:  # noqa: F811
    r = losses.dice(SCORES, LABELS, mask=MASK, class_weights=WEIGHTS, reduction="none")
    recorder.current = 2
    recorder.log.clear()
    exports.clear()
    grad = np.ones((3, 3))
    r.backward(grad)
    assert recorder.log[0] == ("wait", 2, 1)
    assert {step[:2] for step in recorder.log[1:]} == {("library", 2), ("empty", 2)}
    assert exports[0] == ("grad", 2, 2)
    read = [SCORES, LABELS, MASK, WEIGHTS, grad, r._saved[0]]
    assert {(array.ctypes.data, 2) for array in read} < set(recorder.held)


CALLS: dict[str, Callable[[], Any]] = {
    "combined": lambda: combined(stream=9),
    "proposal": lambda: losses.lagrangian_proposal(
        SCORES, PROBLEM["lower"], PROBLEM["upper"], mask=MASK, stream=9
    ),
    "bounds": lambda: losses.size_bounds(np.ones((3, 3), np.int64), "common", stream=9),
    "confusion": lambda: metrics.confusion_matrix(LABELS, scores=SCORES, mask=MASK, stream=9),
    "scores": lambda: metrics.scores(np.ones((3, 3), np.int32), stream=9),
    "volumes": lambda: metrics.volumes(LABELS, 3, mask=MASK, stream=9),
    "boundary": lambda: metrics.boundary_length(LABELS, 3, mask=MASK, stream=9),
    "components": lambda: metrics.components(LABELS, mask=MASK, stream=9),
    "counts": lambda: metrics.component_counts(LABELS, 3, mask=MASK, stream=9),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_explicit_stream(name: str, recorder: Recorder, exports: Any) -> None:  # noqa: F811
    r = CALLS[name]()
    assert {step[:2] for step in recorder.log} == {("library", 9), ("empty", 9)}
    given = [(current, stream) for _, current, stream in exports if stream is not None]
    assert given and set(given) == {(1, 9)}
    # Results are only looked at where the work is.
    assert {current for _, current, stream in exports if stream is None} <= {9}
    assert {stream for _, stream in recorder.held} == {9}
    if name == "combined":
        recorder.current = 2
        recorder.log.clear()
        exports.clear()
        r.backward(np.ones(()))
        assert {step[:2] for step in recorder.log} == {("library", 9), ("empty", 9)}
        assert exports[0] == ("grad", 2, 9) and recorder.current == 2


@pytest.mark.parametrize("name", ["pad_rows", "to_integers", "put_row"])
def test_copies_are_made_on_the_stream_that_reads_them(
    name: str,
    recorder: Recorder,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        recorder, name, lambda array, *_: (seen.append(recorder.current), np.zeros((2, 2)))[1]
    )
    array = np.zeros((2, 2))
    source = _arrays.view(array, "")
    source.device = _ffi.DeviceKey(_ffi.CUDA, 0)
    if name == "pad_rows":
        _arrays.pad_rows(array, source, 3, 9)
    elif name == "put_row":
        _arrays.put_row(recorder, array, source, 0, array, source)
    else:
        integers = np.zeros(2, np.int64)
        source = _arrays.view(integers, "", allowed=_arrays.INTEGERS)
        source.device = _ffi.DeviceKey(_ffi.CUDA, 0)
        monkeypatch.setattr(recorder, name, lambda array, dtype: (seen.append(recorder.current), integers)[1])
        _arrays.to_integers(integers, source, _ffi.INT32, 9)
    assert seen == [1 if name == "put_row" else 9]  # put_row: where it is called


@pytest.mark.parametrize("package", ["numpy", "torch"])
def test_helpers(package: str) -> None:
    """What CUDA frameworks do by themselves, on the CPU here."""
    framework, make_array = NumpyFramework(), np.asarray
    if package == "torch":
        torch = pytest.importorskip("torch", reason="torch is not installed")
        framework, make_array = TorchFramework(_ffi.DeviceKey(_ffi.CPU, 0)), torch.tensor
    bounds = framework.pad_rows(make_array([[1.0, 2.0]]), 3)
    np.testing.assert_array_equal(np.asarray(bounds), [[1, 2], [np.nan] * 2, [np.nan] * 2])
    numbers = make_array([-(2**40), -1, 5, 2**40])
    narrow = framework.to_integers(numbers, _ffi.INT32)
    assert np.asarray(narrow).dtype == np.int32
    assert np.asarray(narrow).tolist() == [-(2**31), -1, 5, 2**31 - 1]
    wide = framework.to_integers(narrow, _ffi.INT64)
    assert np.asarray(wide).dtype == np.int64 and np.asarray(wide).tolist() == np.asarray(narrow).tolist()
    rows = framework.empty((2, 1, 2), _ffi.FLOAT64)
    framework.put_row(rows, 1, np.array([[3.0, 4.0]]))
    assert np.asarray(rows).tolist() == [[[0, 0]], [[3, 4]]]
    counts = make_array([[1, 2], [3, 4]])
    assert np.asarray(framework.weighted_sum(counts, [0.5, 2])).tolist() == [4.5, 9.5]
    assert framework.to_host(counts).tolist() == [[1, 2], [3, 4]]
