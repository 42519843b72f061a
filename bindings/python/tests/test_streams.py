"""Which CUDA stream each step is queued on, which stream waits for which, and whose memory is held.

A framework that records these stands in for CUDA (the work itself is the CPU backend's); the last tests ask
torch on a device for the effect.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import segprior
from segprior import _arrays, _call, _ffi
from segprior._frameworks import NumpyFramework, TorchFramework


class Recorder(NumpyFramework):
    """NumPy with a current stream; `log` holds the steps in order."""

    def __init__(self) -> None:
        self.current = 1
        self.log: list[tuple[Any, ...]] = []
        self.held: list[tuple[int, int]] = []  # (address, stream)

    def current_stream(self) -> int:
        return self.current

    @contextlib.contextmanager
    def on_stream(self, stream: int) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def empty(self, shape: Sequence[int], dtype: int) -> Any:
        self.log.append(("empty", self.current))
        return super().empty(shape, dtype)

    def repeat_rows(self, array: Any, rows: int) -> Any:
        self.log.append(("repeat_rows", self.current))
        return super().repeat_rows(array, rows)

    def stack(self, arrays: Sequence[Any], shape: Sequence[int]) -> Any:
        self.log.append(("stack", self.current))
        return super().stack(arrays, shape)

    def wait(self, waiting: int, other: int) -> None:
        self.log.append(("wait", waiting, other))

    def hold(self, arrays: Sequence[Any], owners: set[int], stream: int) -> None:
        assert stream not in owners
        self.held += [(array.ctypes.data, stream) for array in arrays]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()

    def configure(context: Any, stream: int, threads: int) -> None:
        found.log.append(("library", stream))

    monkeypatch.setattr(_call, "framework_for", lambda *_: found)
    monkeypatch.setattr(_arrays, "framework_for", lambda *_: found)
    monkeypatch.setattr(_ffi.Context, "configure", configure)
    return found


def test_volumes_are_repeated_on_the_stream_that_reads_them(recorder: Recorder) -> None:
    volume = np.array([1.0, 2.0, 3.0])
    source = _arrays.view(volume, "volume")
    source.device = _ffi.DeviceKey(_ffi.CUDA, 0)
    repeated = _arrays.repeat_rows(volume, source, 2, 9)
    assert recorder.log == [("repeat_rows", 9)]
    assert repeated.to_numpy().tolist() == [[1, 2, 3], [1, 2, 3]]


def test_star_centers_are_stacked_on_the_stream_that_reads_them(recorder: Recorder) -> None:
    centers = [np.array([1.0, 2.0]), np.array([[3.0, 4.0], [5.0, 6.0]])]
    sources = [_arrays.view(center, "center") for center in centers]
    sources[0].device = _ffi.DeviceKey(_ffi.CUDA, 0)
    stacked = _arrays.stack(centers, sources, (2, 2), 9)
    assert recorder.log == [("stack", 9)]
    assert stacked.to_numpy().tolist() == [[[1, 2], [3, 4]], [[1, 2], [5, 6]]]


def test_everything_stays_on_one_stream(recorder: Recorder, problem: dict[str, Any]) -> None:
    r = segprior.softmax(problem["features"], tv=segprior.TV())
    r.backward(problem["grad_u"])
    assert {step[1] for step in recorder.log} == {1}
    assert not recorder.held and not [step for step in recorder.log if step[0] == "wait"]


def test_backward_runs_on_the_callers_stream(recorder: Recorder, problem: dict[str, Any]) -> None:
    r = segprior.softmax(
        problem["features"],
        tv=segprior.TV(edge=problem["edge"]),
        volume=segprior.Volume(problem["volume"][0]),
    )
    recorder.current = 2
    recorder.log.clear()
    r.backward(problem["grad_u"])
    assert recorder.log[0] == ("wait", 2, 1)
    assert {step[:2] for step in recorder.log[1:]} == {("library", 2), ("empty", 2)}
    read = [problem["features"], problem["edge"], r.u]
    assert {(array.ctypes.data, 2) for array in read} < set(recorder.held)
    made = [r._saved[0].ctypes.data, r._call.views["volume"].address]
    assert {(address, 2) for address in made} < set(recorder.held)


def test_an_explicit_stream_is_for_both_passes(recorder: Recorder, problem: dict[str, Any]) -> None:
    r = segprior.softmax(problem["features"], tv=segprior.TV(), stream=9)
    assert (problem["features"].ctypes.data, 9) in recorder.held
    recorder.current = 2
    r.backward(problem["grad_u"])
    assert {step[:2] for step in recorder.log} == {("library", 9), ("empty", 9)}
    assert (problem["grad_u"].ctypes.data, 9) in recorder.held
    assert recorder.current == 2


@pytest.fixture
def torch() -> Any:
    found = pytest.importorskip("torch", reason="torch is not installed")
    if not found.cuda.is_available() or _ffi.library().device_count(_ffi.CUDA) == 0:
        pytest.skip("no CUDA device, or a library without CUDA")
    return found


def test_torch_volumes_written_late(torch: Any, problem: dict[str, Any]) -> None:
    """The volumes are still being computed when the call on another stream is queued."""
    features = torch.tensor(problem["features"], device="cuda")
    final = torch.tensor(problem["volume"][0], device="cuda")
    expected = segprior.softmax(features, volume=segprior.Volume(final)).u
    torch.cuda.synchronize()
    volume, side = torch.ones_like(final), torch.cuda.Stream()
    torch.cuda._sleep(200_000_000)
    volume.copy_(final)
    u = segprior.softmax(features, volume=segprior.Volume(volume), stream=side.cuda_stream).u
    torch.cuda.synchronize()
    assert torch.equal(u, expected)


def test_torch_backward_on_another_stream(torch: Any, problem: dict[str, Any]) -> None:
    """Forward is still running on a side stream when backward is called on the default one."""
    features = torch.tensor(problem["features"], device="cuda")
    grad_u = torch.tensor(problem["grad_u"], device="cuda")
    expected = segprior.softmax(features, tv=segprior.TV()).backward(grad_u).features
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)
        r = segprior.softmax(features, tv=segprior.TV())
    found = r.backward(grad_u).features.clone()
    torch.cuda.synchronize()
    assert torch.equal(found, expected)


def test_torch_streams_are_wrapped_by_address(torch: Any) -> None:
    framework = TorchFramework(_ffi.DeviceKey(_ffi.CUDA, torch.cuda.current_device()))
    side = torch.cuda.Stream()
    ran = torch.zeros(1, device="cuda")
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)
        ran += 1
    framework.wait(framework.current_stream(), side.cuda_stream)
    assert ran.item() == 1
    framework.hold([ran, np.zeros(1)], {framework.current_stream()}, side.cuda_stream)
