"""Wrong arguments: each raises a SegpriorError that is also the fitting built-in and names the argument."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

import segprior
from segprior import TV, Star, ThresholdDynamics, Volume, _ffi, presets
from segprior.errors import from_status

O = np.zeros((2, 3, 6, 7))  # noqa: E741 - the features
NAN = float("nan")
TD = ThresholdDynamics
STAR = {"star": [Star(1, (1, 1))]}


def softmax(**arguments: Any) -> segprior.Result:
    return segprior.softmax(**{"features": O, **arguments})


def backward(grad_u: Any = O, *, checkpoint: int | None = None, **arguments: Any) -> Any:
    return softmax(tv=TV(), checkpoint=checkpoint).backward(grad_u, **arguments)


VALUE: list[tuple[Callable[[], Any], str]] = [
    (lambda: softmax(features=np.zeros((3, 4))), r"features has shape \(3, 4\); it must be \[B, I, \*S\]"),
    (lambda: softmax(features=np.zeros((1,) * 6)), r"features has shape"),
    (lambda: softmax(features=np.zeros((1, 257, 2))), r"features.*257.*1 to 256"),
    (lambda: softmax(features=np.zeros((1, 0, 2))), r"features.*0 classes"),
    (lambda: softmax(eps=0.0), r"eps = 0 must be > 0"),
    (lambda: softmax(eps=-1), r"eps = -1 must be > 0"),
    (lambda: softmax(eps=NAN), r"eps = nan"),
    (lambda: softmax(eps=np.ones(2)), r"eps has shape \(2,\); it must have one element"),
    (lambda: softmax(iters=-1), r"iters = -1; it must be an integer >= 0"),
    (lambda: softmax(iters=2.5), r"iters = 2.5"),
    (lambda: softmax(iters=2**31), r"iters = 2147483648; it must be an integer >= 0 and < 2\*\*31"),
    (lambda: softmax(iters=float("inf")), r"iters = inf; it must be an integer >= 0"),
    (lambda: softmax(iters=NAN), r"iters = nan; it must be an integer >= 0"),
    (lambda: softmax(eps=10**400), r"eps = 1000.*; it must be a number that float64 can hold"),
    (lambda: softmax(init_eps=0), r"init_eps = 0.0; it must be > 0"),
    (lambda: softmax(init_eps=NAN), r"init_eps = nan"),
    (lambda: softmax(tol=0), r"tol = 0.0; it must be > 0"),
    (lambda: softmax(tol=NAN), r"tol = nan"),
    (lambda: softmax(tol=float("inf")), r"tol = inf"),
    (lambda: softmax(check_interval=0), r"check_interval = 0"),
    (lambda: softmax(checkpoint=-1), r"checkpoint = -1"),
    (lambda: softmax(threads=-1), r"threads = -1"),
    (lambda: softmax(threads=2**32 + 1), r"threads = 4294967297; it must be an integer >= 0 and < 2\*\*31"),
    (lambda: softmax(threads=1.5), r"threads = 1.5; it must be an integer"),
    (lambda: softmax(stream=4096), r"stream"),
    (lambda: softmax(stream=-1), r"stream = -1; it must be an integer >= 0 and < 2\*\*64"),
    (lambda: softmax(stream=2**64), r"stream = 18446744073709551616; it must be"),
    (lambda: softmax(spacing=[1]), r"spacing has 1 values; features have 2 axes"),
    (lambda: softmax(spacing=[1, 0]), r"spacing\[1\] = 0 must be > 0"),
    (lambda: softmax(tv=TV(lam=-1)), r"tv_lam = -1 must be >= 0"),
    (lambda: softmax(tv=TV(lam=np.ones(3))), r"tv_lam has shape"),
    (lambda: softmax(tv=TV(tau=0)), r"tv_tau = 0.0; it must be > 0"),
    (lambda: softmax(tv=TV(edge=np.ones((7, 6)))), r"tv_edge.*\[1, 7, 6\].*\[1, 6, 7\]"),
    (lambda: softmax(tv=TV(edge=np.ones((3, 6, 7)))), r"tv_edge.*\[3, 6, 7\]"),
    (lambda: softmax(tv=TV(edge=np.ones(42))), r"tv_edge"),
    (lambda: softmax(volume=Volume([1, 2])), r"volume has shape \(2,\); it must be \[3\] or \[2, 3\]"),
    (lambda: softmax(volume=Volume(np.ones((3, 3)))), r"volume.*\[3, 3\].*\[2, 3\]"),
    (lambda: softmax(volume=Volume(np.ones((1, 2, 3)))), r"volume"),
    (lambda: softmax(volume=Volume(upper=[1, 2])), r"volume_upper has shape"),
    (lambda: Volume(), r"volume: give volumes, or lower and/or upper bounds"),
    (lambda: Volume([1], upper=[1]), r"volume: give either volumes or bounds"),
    (lambda: softmax(warm_start=(O, None)), r"init_tv_dual"),
    (lambda: softmax(tv=TV(), warm_start=(O, None)), r"init_tv_dual.*\[2, 3, 6, 7\].*\[2, 3, 2, 6, 7\]"),
    (lambda: softmax(warm_start=(None, np.zeros((2, 3)))), r"init_volume_dual"),
    (lambda: backward(np.zeros((2, 3, 6, 6))), r"grad_u.*\[2, 3, 6, 6\].*\[2, 3, 6, 7\]"),
    (lambda: backward(mode="exact"), r"mode is 'exact'; it must be 'unrolled', 'implicit' or 'last'"),
    (lambda: backward(mode=["last"]), r"mode is \['last'\]; it must be 'unrolled', 'implicit' or 'last'"),
    (lambda: backward(wanted=[["eps"]]), r"wanted has \['eps'\]; mode 'unrolled' of this call"),
    (lambda: backward(checkpoint=0), r"mode 'unrolled' needs .* checkpoint=0"),
    (lambda: backward(mode="implicit", checkpoint=0), r"mode 'implicit' needs .* checkpoint=0"),
    (lambda: backward(tol=1e-3), r"tol = 0.001 is for mode 'implicit' only; mode is 'unrolled'"),
    (lambda: backward(mode="last", max_iters=9), r"max_iters = 9 is for mode 'implicit' only"),
    (lambda: backward(mode="implicit", tol=0), r"tol = 0.0; it must be > 0"),
    (
        lambda: backward(mode="implicit", tol=float("inf")),
        r"^tol = inf; it must be > 0 and finite \(None: the default\)$",
    ),
    (lambda: backward(mode="implicit", max_iters=0), r"max_iters = 0; it must be an integer >= 1"),
    (lambda: backward(wanted=["volume"]), r"wanted has 'volume'; .* has gradients for features, eps"),
    (
        lambda: backward(mode="last", wanted=["eps"]),
        r"wanted has 'eps'; mode 'last' of this call has gradients for features$",
    ),
    (
        lambda: backward(mode="implicit", wanted=["tv_tau"]),
        r"wanted has 'tv_tau'; mode 'implicit' of this call has gradients for features, eps, tv_lam$",
    ),
    (lambda: softmax(td=TD(lam=-1)), r"td_lam = -1 must be >= 0"),
    (lambda: softmax(td=TD(lam=np.ones(2))), r"td_lam has shape \(2,\); it must have one element"),
    (lambda: softmax(td=TD(size=0)), r"td_size = 0; it must be an integer >= 1"),
    (lambda: softmax(td=TD(size=4)), r"td_size = 4 must be odd, 1 to 15"),
    (lambda: softmax(td=TD(size=17)), r"td_size = 17 must be odd, 1 to 15"),
    (lambda: softmax(td=TD(sigma=0)), r"td_sigma = 0 must be > 0"),
    (lambda: softmax(td=TD(sigma=NAN)), r"td_sigma = nan"),
    (lambda: softmax(td=TD(kernel=np.ones((3, 4)))), r"td_kernel: extent 4 of spatial axis 1 must be odd"),
    (lambda: softmax(td=TD(kernel=np.ones((17, 3)))), r"td_kernel: extent 17 of spatial axis 0"),
    (lambda: softmax(td=TD(kernel=np.ones((2, 3, 3)))), r"td_kernel: extent 2 of axis 0 must be the number"),
    (lambda: softmax(td=TD(kernel=[1, 2, 1])), r"td_kernel: ndim = 1 must be 2, or 3"),
    (lambda: softmax(td=TD(edge=np.ones((7, 6)))), r"td_edge.*\[1, 7, 6\].*\[1, 6, 7\]"),
    (lambda: softmax(star=[Star(3, (1, 1))]), r"star\[0\].cls = 3 must be 0 to 2"),
    (lambda: softmax(star=[Star(-1, (1, 1))]), r"star\[0\].cls = -1; it must be an integer >= 0"),
    (lambda: softmax(star=[Star(1, (1, 1)), Star(1, (2, 2))]), r"star\[1\].cls = 1 must not be repeated"),
    (lambda: softmax(star=[Star(1, (1, 1, 1))]), r"star\[0\].center has shape \(3,\); it must be \[2\] or"),
    (lambda: softmax(star=[Star(1, np.ones((1, 2)))]), r"star\[0\].center has shape \(1, 2\).*\[2, 2\]"),
    (lambda: softmax(star=[Star(1, (1, 1), 0)]), r"star\[0\].tau = 0.0; it must be > 0"),
    (lambda: softmax(star=[Star(1, (1, 1), np.ones(3))]), r"star\[0\].tau has shape \(3,\)"),
    (lambda: softmax(star=[Star(0, (1, 1), 1.0), Star(1, (1, 1))]), r"star\[1\].tau is None; give a step"),
    (lambda: softmax(mask=np.ones((7, 6), bool)), r"mask.*\[1, 7, 6\].*\[1, 6, 7\]"),
    (lambda: softmax(mask=np.ones((3, 6, 7), bool)), r"mask.*\[3, 6, 7\].*\[2, 6, 7\]"),
    (lambda: softmax(path=1), r"path is 1; it must be 'auto'"),
    (lambda: softmax(path="fast"), r"path is 'fast'; it must be 'auto', 'streaming', 'on_chip'"),
    (lambda: softmax(warm_start=(None, None, O)), r"init_star_dual"),
    (lambda: softmax(**STAR, warm_start=(None, None, O)), r"init_star_dual.*\[2, 1, 6, 7\]"),
    (
        lambda: softmax(star=[Star(0, (1, 1))], warm_start=softmax(**STAR)),
        r"warm_start has the star classes \(1,\); this call has \(0,\)",
    ),
    (lambda: presets.emtv(np.full((4, 4), NAN), 2), r"image holds NaN"),
    (lambda: presets.emtv(np.ones(()), 2), r"image has shape \(\); it must have 1 to 3 spatial axes"),
    (lambda: presets.emtv(O[0, 0], 2, sweeps=0), r"sweeps = 0; it must be an integer >= 1"),
    (lambda: presets.emtv(O[0, 0], 1), r"classes = 1; it must be an integer >= 2"),
    (lambda: presets.emtv(O[0, 0], 2, mask=np.ones(3)), r"mask has shape \(3,\); it must be \(6, 7\)"),
]

TYPE: list[tuple[Callable[[], Any], str]] = [
    (lambda: softmax(features=None), r"features is NoneType"),
    (lambda: softmax(eps="warm"), r"eps is 'warm'; it must be a number"),
    (lambda: softmax(eps=None), r"eps is None"),
    (lambda: softmax(eps="0.5"), r"eps is '0.5'; it must be a number"),
    (
        lambda: softmax(eps=np.ones(1, np.float32)),
        r"eps: dtype = float32 must be the dtype of features, float64$",
    ),
    (
        lambda: softmax(features=O.astype(np.float32), volume=Volume(np.ones(3))),
        r"volume: dtype = float64 must be the dtype of features, float32$",
    ),
    (lambda: softmax(iters="many"), r"iters is 'many'"),
    (lambda: softmax(threads="a"), r"threads is 'a'; it must be an integer"),
    (lambda: softmax(stream="a"), r"stream is 'a'; it must be an integer"),
    (lambda: softmax(accelerate="no"), r"accelerate is 'no'; it must be True or False"),
    (lambda: softmax(accelerate=2), r"accelerate is 2; it must be True or False"),
    (lambda: softmax(duals="no"), r"duals is 'no'; it must be True or False"),
    (lambda: softmax(spacing=3.0), r"spacing is 3.0; it must be one number per spatial axis \(2\)"),
    (lambda: backward(wanted=5), r"wanted is 5; it must be a list of names"),
    (lambda: backward(wanted="eps"), r"wanted is 'eps'; it must be a list of names"),
    (lambda: softmax(tv=0.5), r"tv is float; it must be segprior.TV"),
    (lambda: softmax(tv=TV(edge=np.ones((6, 7), np.float32))), r"tv_edge.*dtype"),
    (lambda: softmax(tv=TV(edge=np.ones((6, 7), int))), r"tv_edge has dtype int64"),
    (lambda: softmax(td=0.5), r"td is float; it must be segprior.ThresholdDynamics"),
    (lambda: softmax(td=TD(lam="a")), r"td_lam is 'a'; it must be a number"),
    (lambda: softmax(td=TD(size="a")), r"td_size is 'a'; it must be an integer"),
    (lambda: softmax(td=TD(kernel="ab")), r"td_kernel must be an array or numbers \[\*K\] or \[I, \*K\]"),
    (lambda: softmax(td=TD(kernel=np.ones((3, 3), int))), r"td_kernel has dtype int64"),
    (lambda: softmax(td=TD(edge=np.ones((6, 7), np.float16))), r"td_edge has dtype float16"),
    (lambda: softmax(star=Star(1, (1, 1))), r"star is Star; it must be a list of segprior.Star"),
    (lambda: softmax(star=[(1, 1)]), r"star\[0\] is tuple; it must be a list of segprior.Star"),
    (lambda: softmax(star=[Star("a", (1, 1))]), r"star\[0\].cls is 'a'; it must be an integer"),
    (lambda: softmax(star=[Star(1, "ab")]), r"star\[0\].center must be an array or numbers"),
    (
        lambda: softmax(star=[Star(1, np.ones(2, np.float32))]),
        r"center has dtype float32; it must be float64",
    ),
    (lambda: softmax(star=[Star(1, (1, 1), "a")]), r"star\[0\].tau is 'a'; it must be a number"),
    (lambda: softmax(mask=O[0, 0]), r"mask has dtype float64; it must be bool or uint8"),
    (lambda: softmax(mask=[[1]]), r"mask is list; it must be an array"),
    (lambda: softmax(volume=[1, 2, 3]), r"volume is list; it must be segprior.Volume"),
    (lambda: softmax(volume=Volume(np.array([1, 2, 3]))), r"volume has dtype int64"),
    (lambda: softmax(volume=Volume(["a", "b", "c"])), r"volume must be an array or numbers"),
    (lambda: softmax(warm_start=O), r"warm_start must be a Result, \(tv_dual, volume_dual\) or"),
    (lambda: softmax(spacing=["a", 1]), r"spacing\[0\] is 'a'"),
    (lambda: backward(O.astype(np.float32)), r"grad_u.*dtype"),
    (lambda: backward(None), r"grad_u is NoneType"),
]


@pytest.mark.parametrize(("call", "text"), VALUE, ids=[text for _, text in VALUE])
def test_wrong_value(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(segprior.InvalidValueError, match=text) as caught:
        call()
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, segprior.SegpriorError)


@pytest.mark.parametrize(("call", "text"), TYPE, ids=[text for _, text in TYPE])
def test_wrong_type(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(segprior.InvalidTypeError, match=text) as caught:
        call()
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, segprior.SegpriorError)


def test_status_codes_become_the_fitting_exception() -> None:
    fitting = {101: ValueError, 103: TypeError, 108: ValueError, 201: RuntimeError, 202: NotImplementedError}
    fitting.update({301: MemoryError, 302: RuntimeError, 303: RuntimeError, 901: RuntimeError})
    for status, kind in fitting.items():
        error = from_status(status, "text")
        assert isinstance(error, kind) and isinstance(error, segprior.SegpriorError)
        assert error.status == status and str(error) == "text"


def test_no_such_device() -> None:
    with pytest.raises(segprior.DeviceError) as caught:
        _ffi.Context(_ffi.DeviceKey(_ffi.CUDA, 99))
    assert caught.value.status == 302 and "99" in str(caught.value)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_missing_library(tmp_path: Path) -> None:
    """Importing works without the library; the first use says where it was looked for."""
    code = "import segprior\ntry: segprior.softmax(None)\nexcept segprior.LibraryError as e: print(e)"
    done = run_python(code, SEGPRIOR_LIBRARY=str(tmp_path / "none.so"))
    assert "none.so' is not a file" in done.stdout
    (tmp_path / "text.so").write_text("not a library")
    done = run_python(code, SEGPRIOR_LIBRARY=str(tmp_path / "text.so"))
    assert "text.so cannot be loaded as libsegprior" in done.stdout


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGPRIOR_LIBRARY", raising=False)
    package = tmp_path / "bindings" / "python" / "segprior"
    package.mkdir(parents=True)
    monkeypatch.setattr(_ffi, "__file__", str(package / "_ffi.py"))
    with pytest.raises(segprior.LibraryError, match="libsegprior.so not found: "):
        _ffi.library_path()
    built = tmp_path / "build" / _ffi.LIBRARY_NAME
    built.parent.mkdir()
    built.touch()
    with pytest.raises(segprior.LibraryError):
        _ffi.library_path()  # a folder called build, but no source tree of this library around it
    header = tmp_path / "include" / "segprior" / "core.h"
    header.parent.mkdir(parents=True)
    header.touch()
    assert _ffi.library_path() == built
    bundled = package / _ffi.LIBRARY_NAME
    bundled.touch()
    assert _ffi.library_path() == bundled
    monkeypatch.setenv("SEGPRIOR_LIBRARY", str(built))
    assert _ffi.library_path() == built


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ffi, "__version__", "0.99.0")
    with pytest.raises(segprior.LibraryError, match="this package needs 0.99.0"):
        _ffi.Library(_ffi.library().path)
