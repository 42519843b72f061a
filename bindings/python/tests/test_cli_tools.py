"""`segprior info`, `selftest` and `bench`, as a user runs them; they need nothing but NumPy."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import segprior
from segprior import _cli_device, _cli_info, _cli_selftest, _ffi, _selftest_cases, cli
from segprior._cli_device import Place

CPU = Place("cpu", lambda array: array, np.asarray, lambda: None)


def run(*arguments: Any) -> tuple[int, str, str]:
    """Exit code, output and error output of the command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reports a CUDA device, for which no array package is there."""
    monkeypatch.setattr(_ffi.library(), "device_count", lambda kind: 1)
    monkeypatch.setattr(_cli_device, "_import", lambda name: None)


def test_info(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cli_info, "installed", {"torch": "2.9", "pillow": "12"}.get)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    code, out, err = run("info")
    assert (code, err) == (0, "")
    found = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert found["package"] == segprior.__version__
    assert found["library"] == f"{segprior.__version__}  {segprior.library_path()}"
    assert found["devices"].startswith("1 cpu, ")
    assert found["threads"].startswith("3 (OMP_NUM_THREADS), of ")
    assert found["torch"] == "2.9" and found["jax"] == "not installed: pip install 'segprior[jax]'"
    assert found["pictures"] == "no scikit-learn, scikit-image, matplotlib: pip install 'segprior[cli]'"


def test_info_names_the_handlers_of_jax(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(_cli_info, "installed", {"jax": "0.9"}.get)
    handlers = tmp_path / "libsegprior_jax.so"
    monkeypatch.setenv("SEGPRIOR_JAX_LIBRARY", str(handlers))
    wrong = f"0.9, but SEGPRIOR_JAX_LIBRARY = {str(handlers)!r} is not a file"
    assert dict(_cli_info.lines())["jax"] == wrong
    handlers.touch()
    assert dict(_cli_info.lines())["jax"] == f"0.9, handlers {handlers}"
    # Without the variable, beside the package: where segprior.jax looks.
    monkeypatch.delenv("SEGPRIOR_JAX_LIBRARY")
    monkeypatch.setattr(_ffi, "__file__", str(tmp_path / "_ffi.py"))
    assert dict(_cli_info.lines())["jax"] == f"0.9, handlers {handlers}"
    handlers.unlink()
    assert "libsegprior_jax.so not found: build it (SEGPRIOR_JAX=1 pip" in dict(_cli_info.lines())["jax"]


def test_selftest() -> None:
    code, out, err = run("selftest", "--device", "cpu")
    assert (code, err) == (0, ""), out
    lines = out.splitlines()
    assert lines[-1] == f"{len(_selftest_cases.CASES)} passed, 0 failed"
    assert [line[9:38].strip() for line in lines[1:-1]] == list(_selftest_cases.CASES)


def test_selftest_names_every_operator() -> None:
    """A public function that computes is in some case."""
    source = open(_selftest_cases.__file__).read()
    operators = {"softmax", "softcut", "softcut_csr", "csr_solve"}
    assert operators <= set(segprior.__all__)
    for name in operators | {
        "cross_entropy",
        "combined",
        "lagrangian_proposal",
        "confusion_matrix",
        "components",
    }:
        assert f"{name}(" in source


@pytest.mark.parametrize("wrong", ["result", "gradient", "nan", "nan gradient"])
def test_selftest_fails(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that computes something else: results, gradients, or nothing at all."""
    softmax = _selftest_cases.softmax

    def falsified(*arguments: Any, **more: Any) -> Any:
        r = softmax(*arguments, **more)
        if wrong.endswith("gradient"):
            right, factor = r.backward, np.nan if wrong.startswith("nan") else 1.001
            r.backward = lambda *a: _changed(right(*a), features=lambda g: g * factor)
        else:
            r.u = r.u * (np.nan if wrong == "nan" else 1 + 1e-6)
        return r

    monkeypatch.setattr(_selftest_cases, "softmax", falsified)
    code, out, _ = run("selftest", "--device", "cpu")
    failed = [line[9:38].strip() for line in out.splitlines() if line.endswith("FAILED")]
    assert code == 1 and failed == [name for name in _selftest_cases.CASES if name.startswith("softmax")]
    assert out.splitlines()[-1].endswith(f"passed, {len(failed)} failed")


def _changed(gradients: Any, **changes: Any) -> Any:
    for name, change in changes.items():
        setattr(gradients, name, change(getattr(gradients, name)))
    return gradients


def test_selftest_that_can_check_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(place: Place) -> Any:
        raise segprior.NotSupportedError("nothing is supported")

    monkeypatch.setattr(_selftest_cases, "CASES", {"softmax": unsupported})
    code, out, _ = run("selftest", "--device", "cpu")
    assert code == 1 and out.splitlines()[-1] == "0 passed, 0 failed"


def test_selftest_reports_exceptions() -> None:
    def unsupported(place: Place) -> Any:
        raise segprior.NotSupportedError("cuSPARSE cannot be loaded")

    def broken(place: Place) -> Any:
        raise segprior.InternalError("a defect")

    text, passed = _cli_selftest.check(CPU, unsupported)
    assert passed is None and text.strip() == "not available: cuSPARSE cannot be loaded"
    text, passed = _cli_selftest.check(CPU, broken)
    assert passed is False and text.strip() == "FAILED: InternalError: a defect"


@pytest.mark.usefixtures("one_gpu")
def test_unusable_devices_are_named() -> None:
    found, left_out = _cli_device.places()
    assert [place.name for place in found] == ["cpu"]
    assert left_out == ["cuda:0: not used, because its arrays need PyTorch with CUDA, or CuPy"]
    code, _, err = run("selftest", "--device", "cuda:0")
    assert code == 2 and "cuda:0: not used, because its arrays need PyTorch" in err


def test_wrong_arguments() -> None:
    cases = {
        ("selftest", "--device", "tpu"): "device = 'tpu'; it must be one of cpu",
        ("bench", "--device", "cuda:77"): "device = 'cuda:77'; it must be one of cpu",
        ("bench", "--shape", "3x4"): "'3x4' is not BATCHxCLASSESxSIZE",
        ("bench", "--shape", "1x2xN"): "'1x2xN' is not BATCHxCLASSESxSIZE",
        ("bench", "--seconds", "nan"): "seconds = nan; it must be > 0",
    }
    for arguments, text in cases.items():
        code, out, err = run(*arguments)
        assert code == 2 and out == "" and text in err and err.count("\n") == 1, (arguments, err)


@pytest.mark.parametrize("shape", ["2x3x9", "1x3x8x9", "1x2x5x6x7"])
def test_bench(shape: str) -> None:
    arguments = ("bench", "--device", "cpu", "--shape", shape, "--seconds", "1e-6", "--threads", "1")
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    names = {row["operator"] for row in rows}
    assert {"softmax", "TV-softmax", "VPTV-softmax", "STD-softmax", "components"} <= names
    both = {row["operator"] for row in rows if row["pass"] == "backward"}
    assert both == names - {"proposal", "confusion matrix", "components"}
    voxels = np.prod([int(n) for n in shape.split("x")])
    for row in rows:
        assert row["version"] == segprior.__version__ and row["runs"] >= 3 and row["device"] == "cpu"
        spent = row["ns_per_voxel_class_iteration"] * voxels * row["iterations"]
        assert spent == pytest.approx(1e9 * row["seconds"])
    (tv,) = [row for row in rows if row["operator"] == "TV-softmax" and row["pass"] == "forward"]
    axes = shape.count("x") - 1
    assert tv["gb_per_s"] * tv["ns_per_voxel_class_iteration"] == pytest.approx(4 + 8 * axes)  # bytes
    code, table, _ = run(*arguments)
    assert code == 0 and len(table.splitlines()) == len(rows) + 1


def test_commands_need_numpy_alone() -> None:
    """With every optional package missing, what needs one says so and the others work."""
    optional = ["PIL", "cupy", "jax", "matplotlib", "scipy", "skimage", "sklearn", "torch"]
    code = f"import sys\nfor name in {optional}: sys.modules[name] = None\n"
    code += "from segprior import cli\nsys.exit(cli.main(sys.argv[1:]))"

    def without(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
        )

    for arguments in (("info",), ("selftest",), ("bench", "--shape", "1x2x8", "--seconds", "1e-6")):
        assert without(*arguments).returncode == 0, arguments
    for command in ("segment", "cut"):
        seeds = ("--foreground", "1,1", "--background", "2,2") if command == "cut" else ()
        done = without(command, "none.png", *seeds)
        assert done.returncode == 1 and "pip install 'segprior[cli]'" in done.stderr, done.stderr
