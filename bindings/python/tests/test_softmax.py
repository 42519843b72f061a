"""What `segprior.softmax` adds to the C library: defaults, shapes, warm start, reports, threads."""

from __future__ import annotations

import ctypes
import doctest
import math
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segprior
from segprior import _ffi

PYTHON = Path(__file__).resolve().parents[1]


def test_plain_softmax(problem: dict[str, Any]) -> None:
    o = problem["features"]
    expected = np.exp(o / 0.5) / np.exp(o / 0.5).sum(1, keepdims=True)
    r = segprior.softmax(o, eps=0.5)
    np.testing.assert_allclose(r.u, expected, rtol=1e-13)
    assert r.tv_dual is None and r.volume_dual is None
    assert repr(r) == "Result(u=[2, 3, 6, 7] on cpu)"


def test_all_arguments_together(problem: dict[str, Any]) -> None:
    """Floats and one-element arrays are the same; init_eps and tau reach the library."""
    common = {"features": problem["features"], "volume": segprior.Volume(problem["volume"])}
    edge = problem["edge"]
    one = segprior.softmax(
        **common, eps=0.5, init_eps=1.0, tv=segprior.TV(0.7, 0.2, edge), spacing=(2.0, 1.5)
    )
    two = segprior.softmax(
        **common,
        eps=np.array(0.5),
        init_eps=1,
        tv=segprior.TV(np.array([0.7]), np.array([[0.2]]), edge),
        spacing=[2, 1.5],
        threads=1,
    )
    assert np.array_equal(one.u, two.u)
    assert np.abs(one.u.sum(1) - 1).max() < 1e-14
    assert (np.sqrt((one.tv_dual**2).sum(2)) <= 0.7 * edge[:, None] * (1 + 1e-14)).all()
    g = one.backward(problem["grad_u"])
    assert repr(g) == "Gradients(eps, features, init_eps, tv_edge, tv_lam, tv_tau, volume)"


def loss(problem: dict[str, Any], **changed: Any) -> float:
    p = {"eps": 0.5, "init_eps": 0.8, "lam": 0.7, "tau": 0.1, **problem, **changed}
    r = segprior.softmax(
        p["features"],
        eps=p["eps"],
        iters=12,
        init_eps=p["init_eps"],
        tv=segprior.TV(p["lam"], p["tau"], p["edge"]),
        volume=segprior.Volume(p["volume"]),
        checkpoint=0,
    )
    return float((r.u * problem["grad_u"]).sum())


def test_gradients_against_central_differences(problem: dict[str, Any]) -> None:
    """Every gradient, with [I] volumes and [*S] edges, which are summed over the batch."""
    problem = {**problem, "edge": problem["edge"][0], "volume": problem["volume"][0]}
    r = segprior.softmax(
        problem["features"],
        eps=0.5,
        iters=12,
        init_eps=0.8,
        tv=segprior.TV(0.7, 0.1, problem["edge"]),
        volume=segprior.Volume(problem["volume"]),
    )
    g = r.backward(problem["grad_u"])
    assert g.volume.shape == (3,) and g.tv_edge.shape == (6, 7)
    h = 1e-5  # error h^2 plus 1e-16 / h, both about 1e-10
    for name, value, found in (
        ("eps", 0.5, g.eps[0]),
        ("init_eps", 0.8, g.init_eps[0]),
        ("lam", 0.7, g.tv_lam[0]),
        ("tau", 0.1, g.tv_tau[0]),
    ):
        expected = (loss(problem, **{name: value + h}) - loss(problem, **{name: value - h})) / (2 * h)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-8), name
    random = np.random.default_rng(0)
    for name, found in (("features", g.features), ("edge", g.tv_edge), ("volume", g.volume)):
        direction = random.normal(size=found.shape)
        plus = loss(problem, **{name: problem[name] + h * direction})
        minus = loss(problem, **{name: problem[name] - h * direction})
        assert (found * direction).sum() == pytest.approx((plus - minus) / (2 * h), rel=1e-6, abs=1e-8), name


def test_wanted(problem: dict[str, Any]) -> None:
    r = segprior.softmax(problem["features"], tv=segprior.TV(), volume=segprior.Volume(problem["volume"]))
    everything = r.backward(problem["grad_u"])
    some = r.backward(problem["grad_u"], wanted=("volume", "eps"))
    assert np.array_equal(some.volume, everything.volume) and np.array_equal(some.eps, everything.eps)
    assert some.features is None and some.tv_lam is None


def test_volume_bounds(problem: dict[str, Any]) -> None:
    upper = [12.0, math.inf, 9.0]
    r = segprior.softmax(
        problem["features"],
        iters=300,
        volume=segprior.Volume(lower=[0, 15, 0], upper=upper),
        tv=segprior.TV(0.2),
    )
    volumes = r.u.sum((2, 3))
    assert (volumes <= np.array(upper) + 1e-3).all() and (volumes[:, 1] >= 15 - 1e-3).all()
    g = r.backward(problem["grad_u"])
    assert g.volume_lower.shape == g.volume_upper.shape == (3,) and g.volume is None


def test_class_of_volume_zero_is_excluded(problem: dict[str, Any]) -> None:
    r = segprior.softmax(problem["features"], iters=50, volume=segprior.Volume([0, 20, 22]), tv=segprior.TV())
    assert (r.u[:, 0] == 0).all() and np.isneginf(r.volume_dual[:, 0]).all()
    assert np.isfinite(r.u).all()
    again = segprior.softmax(
        problem["features"], volume=segprior.Volume([0, 20, 22]), tv=segprior.TV(), warm_start=r
    )
    assert set(again.info.status) == {segprior.Status.ITERATION_CAP}, (
        "-inf of an excluded class is a fine start"
    )


def test_warm_start_continues(problem: dict[str, Any]) -> None:
    def solve(iters: int, start: Any = None) -> segprior.Result:
        volume = segprior.Volume(problem["volume"])
        return segprior.softmax(
            problem["features"], iters=iters, tv=segprior.TV(0.5), volume=volume, warm_start=start
        )

    # Plain iteration: k steps need the duals alone, and u of the start; so 10 + 10 is 20 only up to the first
    # gradient, which uses u of the new start, S((o - div q + f) / eps): exactly the last u.
    first = solve(10)
    for start in (first, (first.tv_dual, first.volume_dual)):
        np.testing.assert_allclose(solve(10, start).u, solve(20).u, atol=1e-14)
    assert np.abs(solve(10, (None, first.volume_dual)).u - solve(20).u).max() > 1e-4


def test_warm_start_serves_fewer_priors(problem: dict[str, Any]) -> None:
    both = segprior.softmax(problem["features"], tv=segprior.TV(), volume=segprior.Volume(problem["volume"]))
    assert segprior.softmax(problem["features"], tv=segprior.TV(), warm_start=both).volume_dual is None


def test_tolerance_accelerates_by_default(problem: dict[str, Any]) -> None:
    def solve(**more: Any) -> segprior.Result:
        return segprior.softmax(problem["features"], eps=0.1, iters=5000, tv=segprior.TV(1.0), **more)

    default, accelerated = solve(tol=1e-7), solve(tol=1e-7, accelerate=True)
    plain, capped = solve(tol=1e-7, accelerate=False), segprior.softmax(problem["features"], tv=segprior.TV())
    assert np.array_equal(default.u, accelerated.u)
    assert set(default.info.status) == {segprior.Status.CONVERGED}
    assert default.info.iterations.max() < plain.info.iterations.max()
    assert set(capped.info.status) == {segprior.Status.ITERATION_CAP}
    assert (default.info.residual < 1e-7).all()


def test_info(problem: dict[str, Any]) -> None:
    features = problem["features"].copy()
    features[1, 0, 2, 3] = np.nan
    r = segprior.softmax(features, iters=7, tv=segprior.TV())
    assert len(r.info) == 2 and r.info is r.info
    first, second = r.info
    assert first.status is segprior.Status.ITERATION_CAP and first.iterations == 7 and first.residual > 0
    assert second.status is segprior.Status.NONFINITE_INPUT and math.isnan(second.residual)
    assert r.info[-1] == (*second[:2], pytest.approx(math.nan, nan_ok=True))
    assert np.isnan(r.u[1]).all() and np.isfinite(r.u[0]).all()
    assert "NONFINITE_INPUT" in repr(r.info)


def test_infeasible_volume(problem: dict[str, Any]) -> None:
    r = segprior.softmax(problem["features"], iters=5, volume=segprior.Volume([10, 10, 10]))
    assert set(r.info.status) == {segprior.Status.INFEASIBLE_VOLUME}
    assert np.isfinite(r.u).all()


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5)])
def test_empty(shape: tuple[int, ...]) -> None:
    r = segprior.softmax(np.empty(shape), tv=segprior.TV(), volume=segprior.Volume([0.0, 0.0, 0.0]))
    g = r.backward(np.empty(shape))
    assert r.u.shape == g.features.shape == shape
    assert len(r.info) == shape[0] and (r.volume_dual == 0).all()
    assert g.eps[0] == 0 and g.tv_lam[0] == 0 and (g.volume == 0).all()


@pytest.mark.parametrize("spatial", [(33,), (5, 7), (3, 4, 5)])
def test_axes_and_single_class(spatial: tuple[int, ...]) -> None:
    r = segprior.softmax(np.zeros((1, 1, *spatial), np.float32), tv=segprior.TV())
    assert (r.u == 1).all() and r.tv_dual.shape == (1, 1, len(spatial), *spatial)


def test_no_duals(problem: dict[str, Any]) -> None:
    r = segprior.softmax(problem["features"], tv=segprior.TV(), duals=False)
    assert r.tv_dual is None
    assert r.backward(problem["grad_u"]).tv_lam is not None


def test_threads_have_their_own_contexts(problem: dict[str, Any]) -> None:
    """The same work in four threads at once gives the same bits, each in a context of its own."""

    def solve() -> np.ndarray:
        r = segprior.softmax(problem["features"], iters=200, tv=segprior.TV(), threads=1)
        return np.concatenate([r.u.ravel(), r.backward(problem["grad_u"]).features.ravel()])

    expected, found, handles, failed = solve(), [], [], []
    barrier = threading.Barrier(4)

    def work() -> None:
        try:
            barrier.wait()
            for _ in range(10):
                found.append(solve())
            handles.append(_ffi.context(_ffi.DeviceKey(_ffi.CPU, 0)).handle.value)
            barrier.wait()  # all alive: handles cannot be reused
        except BaseException as error:
            failed.append(error)
            barrier.abort()  # or the others would wait for this one

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed
    assert len(set(handles)) == 4
    assert len(found) == 40 and all(np.array_equal(one, expected) for one in found)


def test_backward_in_another_thread(problem: dict[str, Any]) -> None:
    r = segprior.softmax(problem["features"], tv=segprior.TV())
    found: list[Any] = []
    worker = threading.Thread(target=lambda: found.append(r.backward(problem["grad_u"]).features))
    worker.start()
    worker.join()
    assert np.array_equal(found[0], r.backward(problem["grad_u"]).features)


def test_version_matches_the_header() -> None:
    header = (PYTHON.parents[1] / "include" / "segprior" / "core.h").read_text()
    numbers = re.findall(r"#define SEGPRIOR_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header)
    assert ".".join(numbers) == segprior.__version__


def test_structs_match_the_headers() -> None:
    """Field names and order of each mirrored struct, and every constant, as the headers spell them."""
    text = "".join(
        (PYTHON.parents[1] / "include" / "segprior" / n).read_text()
        for n in ("core.h", "softmax.h", "softcut.h", "csr.h", "losses.h", "proposals.h", "metrics.h")
    )
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    for name, mirror in {
        "segprior_tensor": _ffi.Tensor,
        "segprior_info": _ffi.Info,
        "segprior_softmax_opts": _ffi.SoftmaxOpts,
        "segprior_softmax_inputs": _ffi.SoftmaxInputs,
        "segprior_softmax_outputs": _ffi.SoftmaxOutputs,
        "segprior_softmax_grads": _ffi.SoftmaxGrads,
        "segprior_softcut_opts": _ffi.SoftcutOpts,
        "segprior_softcut_inputs": _ffi.SoftcutInputs,
        "segprior_softcut_outputs": _ffi.SoftcutOutputs,
        "segprior_softcut_grads": _ffi.SoftcutGrads,
        "segprior_softcut_cotangents": _ffi.SoftcutCotangents,
        "segprior_softcut_second_grads": _ffi.SoftcutSecondGrads,
        "segprior_csr_opts": _ffi.CsrOpts,
        "segprior_loss_opts": _ffi.LossOpts,
        "segprior_loss_inputs": _ffi.LossInputs,
        "segprior_loss_outputs": _ffi.LossOutputs,
        "segprior_loss_cotangents": _ffi.LossCotangents,
        "segprior_loss_grads": _ffi.LossGrads,
        "segprior_proposal_opts": _ffi.ProposalOpts,
        "segprior_proposal_inputs": _ffi.ProposalInputs,
        "segprior_proposal_outputs": _ffi.ProposalOutputs,
        "segprior_confusion_inputs": _ffi.ConfusionInputs,
        "segprior_confusion_scores_outputs": _ffi.ConfusionScoresOutputs,
        "segprior_components_opts": _ffi.ComponentsOpts,
    }.items():
        body = re.search(rf"typedef struct {name} {{(.*?)}} {name};", text, flags=re.S)
        assert body, name
        fields = [re.sub(r"\[.*\]", "", f).split()[-1].lstrip("*") for f in body[1].split(";") if f.strip()]
        assert fields == [field[0] for field in mirror._fields_], name
    assert ctypes.sizeof(_ffi.Info) == 16
    constants = {n: int(v) for n, v in re.findall(r"\bSEGPRIOR_(\w+) =\s*(\d+)", text)}
    for status in segprior.Status:
        assert constants[status.name] == status.value
    kinds = ("CPU", "CUDA", "FLOAT", "BFLOAT", "UINT", "INT", "BACKWARD_", "PATH_", "SOFTCUT_", "NORM_")
    kinds += ("LOSS_", "ACTIVATION_", "REDUCTION_", "BOUNDS_", "PROPOSAL_")
    names = [name for name in constants if name.startswith(kinds)]
    assert len(names) == 42
    for name in names:
        assert constants[name] == getattr(_ffi, name)


def test_docstring_example() -> None:
    failed, tried = doctest.testmod(segprior)
    assert tried > 0 and failed == 0


def test_readme_example() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (PYTHON / "README.md").read_text(), flags=re.S)
    plain = [block for block in blocks if not re.search(r"import (torch|jax)", block)]  # make test-bindings runs those
    assert len(plain) > 2
    for block in plain:
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert ("CONVERGED" in done.stdout) == (".info" in block)
