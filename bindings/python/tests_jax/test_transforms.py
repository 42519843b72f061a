"""jit, checkpoint, loops, conditions, threads and devices around the calls."""

from __future__ import annotations

import concurrent.futures
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import same
from softmax_problem import arguments, arrays

import segprior
import segprior.jax as sj


@pytest.fixture
def a() -> dict[str, Any]:
    return {name: jnp.asarray(array) for name, array in arrays("all").items()}


def value(a: dict[str, Any]) -> Any:
    return jnp.sum(sj.softmax(a["features"], **arguments(a, "all")) ** 2)


def leaves_equal(found: Any, expected: Any) -> None:
    jax.tree.map(same, found, expected)


def test_jit_has_no_python_inside(a: dict[str, Any]) -> None:
    text = jax.jit(jax.grad(value)).lower(a).compile().as_text()
    targets = set(re.findall(r'custom_call_target="(segprior\w*)"', text))
    assert targets == {"segprior_softmax_forward", "segprior_softmax_backward"}
    assert "callback" not in text


def test_eager_and_jit_agree(a: dict[str, Any]) -> None:
    leaves_equal(jax.jit(jax.grad(value))(a), jax.grad(value)(a))


def test_no_state_without_gradient(a: dict[str, Any]) -> None:
    assert "u8[" not in str(jax.make_jaxpr(value)(a))
    assert "u8[" in str(jax.make_jaxpr(jax.grad(value))(a))


def test_only_the_asked_gradients_are_computed(a: dict[str, Any]) -> None:
    def outputs(*names: str) -> int:
        wanted = {name: a[name] for name in names}
        text = str(jax.make_jaxpr(jax.grad(lambda w: value({**a, **w})))(wanted))
        (line,) = re.findall(
            r"([^\n]*) = ffi_call\[\n(?:(?!= ffi_call).)*segprior_softmax_backward", text, re.DOTALL
        )
        return line.count(":")

    assert outputs("features") == 1
    assert outputs("features", "eps", "tv_edge") == 3


def test_checkpoint(a: dict[str, Any]) -> None:
    expected = jax.jit(jax.grad(value))(a)
    leaves_equal(jax.jit(jax.grad(jax.checkpoint(value)))(a), expected)
    policy = jax.checkpoint_policies.nothing_saveable
    leaves_equal(jax.jit(jax.grad(jax.checkpoint(value, policy=policy)))(a), expected)


def test_scan_stacks_the_state(a: dict[str, Any]) -> None:
    """Its backward pass reads slices of a stack: the state must not depend on where it lies."""
    factors = jnp.array([1.0, 0.9, 1.1, 0.8, 1.2])

    def scanned(a: dict[str, Any]) -> Any:
        def step(total: Any, factor: Any) -> tuple[Any, None]:
            return total + value({**a, "features": factor * a["features"]}), None

        return jax.lax.scan(step, 0.0, factors)[0]

    def unrolled(a: dict[str, Any]) -> Any:
        return sum(value({**a, "features": factor * a["features"]}) for factor in factors)

    found, expected = jax.jit(jax.grad(scanned))(a), jax.jit(jax.grad(unrolled))(a)
    for name in a:  # sums in another order
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-11, atol=1e-12)


def test_condition(a: dict[str, Any]) -> None:
    def either(a: dict[str, Any], which: Any) -> Any:
        return jax.lax.cond(which, value, lambda a: jnp.sum(a["features"]), a)

    gradient = jax.jit(jax.grad(either))
    leaves_equal(gradient(a, True)["features"], jax.grad(value)(a)["features"])
    assert np.all(gradient(a, False)["features"] == 1)


def test_constant_arguments_are_not_differentiated(a: dict[str, Any]) -> None:
    """stop_gradient, too: mode "last" would refuse a gradient for eps."""

    def last(a: dict[str, Any]) -> Any:
        given = {**a, "eps": jax.lax.stop_gradient(a["eps"])}
        u = sj.softmax(given["features"], given["eps"], mode="last")
        return jnp.sum(u**2)

    gradient = jax.grad(last)(a)
    assert np.any(gradient["features"]) and not np.any(gradient["eps"])


def test_threads() -> None:
    """XLA runs calls on threads of its own, here many at a time."""
    random = np.random.default_rng(0)
    features = [random.normal(size=(2, 3, 20 + k, 17)).astype(np.float32) for k in range(6)]
    gradient = jax.jit(jax.value_and_grad(lambda f: jnp.sum(sj.softmax(f, 0.5, tv=sj.TV(0.4)) ** 2)))
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda f: [gradient(f) for _ in range(4)], features))
    for f, results in zip(features, found):
        r = segprior.softmax(f, 0.5, tv=segprior.TV(0.4))
        for _, grad in results:
            same(grad, r.backward(2 * r.u).features)


SEVERAL_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
import segprior.jax as sj
from jax.sharding import PartitionSpec, NamedSharding
assert len(jax.devices()) == 2
features = np.random.default_rng(0).normal(size=(4, 3, 6, 5)).astype(np.float32)
eps = jnp.float32(0.5)
def gradients(features, eps):
    return jax.grad(lambda f, eps: jnp.sum(sj.softmax(f, eps, tv=sj.TV(0.4)) ** 2), (0, 1))(features, eps)
expected, of_eps = gradients(features, eps)
mesh = jax.make_mesh((2,), ("batch",))
spec, same = PartitionSpec("batch"), PartitionSpec()
given = jax.device_put(features, NamedSharding(mesh, spec))
mapped = jax.shard_map(gradients, mesh=mesh, in_specs=(spec, same), out_specs=(spec, same))
found, found_of_eps = jax.jit(mapped)(given, eps)
np.testing.assert_array_equal(found, expected)
np.testing.assert_allclose(found_of_eps, of_eps, rtol=1e-5)  # a sum over the devices
found = jax.pmap(gradients, in_axes=(0, None))(features.reshape(2, 2, 3, 6, 5), eps)[0]
np.testing.assert_array_equal(found.reshape(features.shape), expected)
# The compiler's own partitioner.
np.testing.assert_array_equal(jax.jit(gradients)(given, eps)[0], expected)
"""


def test_several_devices() -> None:
    """A process of its own: the number of CPU devices is fixed at its start."""
    flags = "import os; os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=2'\n"
    done = subprocess.run(
        [sys.executable, "-c", flags + SEVERAL_DEVICES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_condition_in_a_program(a: dict[str, Any]) -> None:
    """That on the saved state of a folded call (_calls.py) is gone where forward and backward are one
    program."""

    def gradient(features: Any) -> Any:
        return jax.grad(lambda f: value({**a, "features": f}))(features)

    options = {"xla_backend_optimization_level": "1"}  # which conftest.py lowers
    for function in (gradient, jax.vmap(gradient)):
        features = a["features"] if function is gradient else jnp.stack([a["features"]] * 2)
        text = jax.jit(function).lower(features).compile(compiler_options=options).as_text()
        assert "segprior_softmax_backward" in text and " conditional(" not in text
        # With `vmap`, backward makes the forward call again: it is one with the first.
        assert text.count('custom_call_target="segprior_softmax_forward"') == 1


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_one_function_differentiated_in_many_ways(wrap: Any) -> None:
    """JAX keeps the traced function: what one derivative asked for must not leak into the next."""
    features = jnp.asarray(arrays("tv")["features"])
    eps = jnp.array([0.5])
    inner = jax.jit(lambda f, eps: jnp.sum(sj.softmax(f, eps, iters=3, tv=sj.TV(0.4)) ** 2))

    def scanned(f: Any, eps: Any) -> Any:
        return jax.lax.scan(lambda total, k: (total + inner(k * f, eps), None), 0.0, jnp.array([1.0, 2.0]))[0]

    def added(f: Any, eps: Any) -> Any:
        u = [sj.softmax(k * f, eps, iters=3, tv=sj.TV(0.4)) for k in (1, 2)]
        return jnp.sum(u[0] ** 2) + jnp.sum(u[1] ** 2)

    expected = jax.grad(added, (0, 1))(features, eps)
    for which in (1, 0, (0, 1), 1):
        found = jax.grad(wrap(scanned), which)(features, eps)
        for number, gradient in zip(*((which, found) if isinstance(which, tuple) else ((which,), (found,)))):
            np.testing.assert_allclose(gradient, expected[number], rtol=1e-12, atol=1e-13)
