"""Errors name the argument, while tracing; derivatives that do not exist; a library that is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import segprior
import segprior.jax as sj
from segprior import InvalidTypeError, InvalidValueError, LibraryError

FEATURES = jnp.zeros((2, 3, 4, 5), jnp.float32)
EDGES = (jnp.ones((2, 3, 3, 5), jnp.float32), jnp.ones((2, 3, 4, 4), jnp.float32))
LABELS = jnp.zeros((2, 4, 5), jnp.uint8)

WRONG: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (sj.softmax, {"features": [1.0]}, InvalidTypeError, "features is list"),
    (sj.softmax, {"features": FEATURES.astype(int)}, InvalidTypeError, "features has dtype int64"),
    (sj.softmax, {"features": FEATURES[0, 0]}, InvalidValueError, "features has shape"),
    (sj.softmax, {"eps": -1.0}, InvalidValueError, "eps"),
    (sj.softmax, {"eps": jnp.ones(2)}, InvalidValueError, "eps has shape"),
    (sj.softmax, {"eps": jnp.ones((), complex)}, InvalidTypeError, "eps has dtype complex128"),
    (sj.softmax, {"tv": sj.TV(edge=jnp.ones((4, 5), bool))}, InvalidTypeError, "tv_edge has dtype bool"),
    (sj.softmax, {"eps": "small"}, InvalidTypeError, "eps is 'small'"),
    (sj.softmax, {"iters": 2.5}, InvalidValueError, "iters = 2.5"),
    (sj.softmax, {"mode": "exact"}, InvalidValueError, "mode is 'exact'"),
    (sj.softmax, {"checkpoint": 0}, InvalidValueError, "checkpoint = 0"),
    (sj.softmax, {"path": "fast"}, InvalidValueError, "path is 'fast'"),
    (sj.softmax, {"spacing": (1.0,)}, InvalidValueError, "spacing has 1 values"),
    (sj.softmax, {"tv": 0.4}, InvalidTypeError, "tv is float"),
    (sj.softmax, {"tv": sj.TV(edge=jnp.ones((3, 4, 5)))}, InvalidValueError, "tv_edge"),
    (sj.softmax, {"volume": sj.Volume([1.0, 2.0])}, InvalidValueError, "volume has shape"),
    (sj.softmax, {"td": sj.ThresholdDynamics(kernel=jnp.ones((2, 2)))}, InvalidValueError, "td_kernel"),
    (sj.softmax, {"star": [sj.Star(0, [1.0])]}, InvalidValueError, r"star\[0\].center has shape"),
    (sj.softmax, {"star": [sj.Star(5, [1.0, 2.0])]}, InvalidValueError, r"star\[0\].cls"),
    (sj.softmax, {"mask": jnp.ones((4, 5))}, InvalidTypeError, "mask has dtype"),
    (sj.softmax, {"warm_start": jnp.ones(3)}, InvalidTypeError, "warm_start"),
    (
        sj.softmax,
        {"warm_start": (jnp.ones((2, 3, 2, 4, 4)), None), "tv": sj.TV()},
        InvalidValueError,
        "init_tv_dual",
    ),
    (sj.softcut, {"scores": FEATURES.astype(jnp.float16)}, InvalidTypeError, "scores has dtype float16"),
    (sj.softcut, {"edges": EDGES[:1]}, InvalidValueError, "edges has 1 members"),
    (sj.softcut, {"edges": EDGES[0]}, InvalidTypeError, "edges is"),
    (sj.softcut, {"edges": EDGES[::-1]}, InvalidValueError, r"edges\[0\]"),
    (sj.softcut, {"edges": (EDGES[0], EDGES[1].astype(float))}, InvalidTypeError, r"edges\[1\]"),
    (sj.softcut, {"conductance": jnp.ones((2, 3, 4, 5))}, InvalidTypeError, "conductance"),
    (sj.softcut, {"tol": 0.0}, InvalidValueError, "tol = 0.0"),
    (sj.softcut, {"solver": "lu"}, InvalidValueError, "solver is 'lu'"),
    (sj.losses.dice, {"labels": None}, InvalidValueError, "labels and target"),
    (sj.losses.dice, {"labels": LABELS[:1]}, InvalidValueError, "labels"),
    (sj.losses.dice, {"labels": LABELS.astype(float)}, InvalidTypeError, "labels has dtype"),
    (sj.losses.dice, {"smooth_nr": -1}, InvalidValueError, "smooth_nr"),
    (sj.losses.dice, {"class_weights": jnp.ones(2)}, InvalidValueError, "class_weights"),
    (sj.losses.combined, {}, InvalidValueError, "are all 0"),
    (sj.losses.combined, {"dice": 1.0, "reduction": "none"}, InvalidValueError, "reduction"),
    (sj.losses.combined, {"size": 1.0}, InvalidValueError, "lower and upper"),
    (sj.losses.combined, {"size": 1.0, "lower": jnp.ones((3, 3))}, InvalidValueError, "lower"),
    (sj.losses.combined, {"size": 1.0, "lower": [1, 1, 1], "groups": [0.5, 1]}, InvalidTypeError, "groups"),
]


@pytest.mark.parametrize("function, wrong, kind, text", WRONG)
def test_arguments(function: Any, wrong: dict[str, Any], kind: type[Exception], text: str) -> None:
    defaults: dict[str, Any] = {"scores": FEATURES, "labels": LABELS}
    if function is sj.softmax:
        defaults = {"features": FEATURES}
    elif function is sj.softcut:
        defaults = {"scores": FEATURES, "edges": EDGES}
    with pytest.raises(kind, match=text):
        jax.eval_shape(lambda: function(**{**defaults, **wrong}))


def test_prior_types() -> None:
    with pytest.raises(InvalidValueError, match="either volumes or bounds"):
        sj.Volume(jnp.ones(3), lower=jnp.ones(3))


def test_second_derivatives() -> None:
    for function in (sj.softmax, lambda f: sj.losses.dice(f, LABELS)):
        once = jax.grad(lambda f, function=function: jnp.sum(function(f) ** 2))
        with pytest.raises(segprior.NotSupportedError, match="first derivatives only"):
            jax.grad(lambda f, once=once: jnp.sum(once(f)))(FEATURES)


def test_forward_mode() -> None:
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(sj.softmax, (FEATURES,), (FEATURES,))


@pytest.mark.parametrize("mode, name", [("last", "eps"), ("implicit", "tv_tau")])
def test_modes_without_a_gradient(mode: str, name: str) -> None:
    def u(value: Any) -> Any:
        eps, tau = (value, 0.1) if name == "eps" else (0.5, value)
        return jnp.sum(sj.softmax(FEATURES, eps, tv=sj.TV(0.4, tau), mode=mode))

    with pytest.raises(segprior.NotSupportedError, match=f"'{mode}', which has no gradient for {name}"):
        jax.grad(u)(jnp.float32(0.2))


def test_error_of_the_library_while_running() -> None:
    """What the library refuses only when it computes arrives as JAX's error, with the library's text."""
    from segprior.jax import _calls, _softmax

    plan = _softmax.Plan(
        options=bytes(segprior._ffi.SoftmaxOpts()),  # not initialised: struct_size is 0
        star_classes=(),
        features=((2, 3, 4, 5), "float32"),
        real="float32",
        duals=(),
        saved_bytes=0,
        mode="unrolled",
    )
    kernel = _softmax._forward_kernel((plan, False, False), ["features"])
    with pytest.raises(jax.errors.JaxRuntimeError, match="struct_size"):
        jax.block_until_ready(_calls.run(kernel, [FEATURES]))


@pytest.mark.parametrize("value", ["/nowhere/libsegprior_jax.so", sys.executable])
def test_library_not_found(value: str) -> None:
    """The first does not exist, the second is no library."""
    code = "import numpy, segprior.jax\nsegprior.jax.softmax(numpy.zeros((1, 2, 3), 'f'))"
    environment = {**os.environ, "SEGPRIOR_JAX_LIBRARY": value}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    assert LibraryError.__name__ in done.stderr and value in done.stderr


def test_old_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    from segprior.jax import _library

    monkeypatch.setattr(jax, "__version_info__", (0, 5, 3))
    with pytest.raises(LibraryError, match=r"jax >= 0\.6"):
        _library.require_jax()


def test_numpy_arrays_are_taken() -> None:
    np.testing.assert_allclose(sj.softmax(np.zeros((1, 2, 3), np.float32)), 0.5)
