"""vmap: every combination of mapped arguments and gradients against a loop; which become one call."""

from __future__ import annotations

import itertools
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import same
from softmax_problem import arguments, arrays

import segprior.jax as sj

CALLS = 3


def stacked(a: dict[str, Any], mapped: tuple[str, ...]) -> dict[str, Any]:
    """The arrays, those in `mapped` with CALLS different values on a new first axis."""
    factors = np.array([1.0, 0.93, 1.06])[:CALLS]

    def values(name: str, array: Any) -> Any:
        if array.dtype == np.uint8:
            return jnp.stack([jnp.roll(array, call, -1) for call in range(CALLS)])
        if name == "volume":  # which have to add up to the voxels
            return jnp.stack([jnp.roll(array, call, -1) for call in range(CALLS)])
        return jnp.stack([array * factor for factor in factors.astype(array.dtype)])

    return {name: values(name, array) if name in mapped else array for name, array in a.items()}


def check(function: Callable[..., Any], a: dict[str, Any], mapped: tuple[str, ...]) -> None:
    """`function` of all arrays gives one or a tree of arrays."""
    given = {name: jnp.asarray(array) for name, array in stacked(a, mapped).items()}
    axes = ({name: 0 if name in mapped else None for name in a},)
    found = jax.jit(jax.vmap(function, axes))(given)
    alone = jax.jit(function)
    each = [
        alone({name: array[call] if name in mapped else array for name, array in given.items()})
        for call in range(CALLS)
    ]
    jax.tree.map(same, found, jax.tree.map(lambda *parts: jnp.stack(parts), *each))


def is_loop(function: Callable[..., Any], a: dict[str, Any], mapped: tuple[str, ...]) -> bool:
    axes = ({name: 0 if name in mapped else None for name in a},)
    return "scan" in str(jax.make_jaxpr(jax.vmap(function, axes))(stacked(a, mapped)))


def u(a: dict[str, Any], variant: str) -> Any:
    return sj.softmax(a["features"], **arguments(a, variant))


MAPPED = [
    *(("tv_edge", mapped) for mapped in (("features",), ("tv_edge",), ("features", "tv_edge"), ("eps",))),
    *(("volume", mapped) for mapped in (("features",), ("volume",), ("features", "volume", "eps"))),
    *(("bounds", mapped) for mapped in (("features",), ("volume_lower", "volume_upper"))),
    *(("td_kernel", mapped) for mapped in (("features",), ("td_kernel",), ("td_edge", "features"))),
    *(("star", mapped) for mapped in (("features",), ("center0",), ("center1", "features"), ("star_tau",))),
    *(("mask", mapped) for mapped in (("features",), ("mask",), ("features", "mask"))),
    *(("warm", mapped) for mapped in (("features",), ("tv_dual",))),
    ("all", ("features", "eps", "tv_edge", "volume", "td_sigma", "center1")),
]


@pytest.mark.parametrize("variant, mapped", MAPPED)
def test_softmax(variant: str, mapped: tuple[str, ...]) -> None:
    """Forward, and all gradients of each mapped call."""
    a = arrays(variant)
    check(lambda a: sj.softmax_with_duals(a["features"], **arguments(a, variant)), a, mapped)
    names = [name for name in a if name not in ("mask", "tv_dual", "volume_dual")]

    def gradients(a: dict[str, Any]) -> Any:
        return jax.grad(lambda w: jnp.sum(u({**a, **w}, variant) ** 2))({name: a[name] for name in names})

    check(gradients, a, mapped)


WANTED = [
    *((("features",), names) for names in (("features",), ("features", "tv_edge", "volume"), ("eps",))),
    (("features", "tv_edge", "volume"), ("features", "tv_edge", "volume")),
    *((("tv_edge",), names) for names in (("features",), ("tv_edge",))),
    *((("eps",), names) for names in (("features",), ("eps",))),
]


@pytest.mark.parametrize("mapped, names", WANTED)
def test_wanted_gradients(mapped: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Few gradients are wanted, few arguments mapped: those of an image alone are one call."""
    a = arrays("all")

    def gradients(a: dict[str, Any]) -> Any:
        return jax.grad(lambda w: jnp.sum(u({**a, **w}, "all") ** 2))({name: a[name] for name in names})

    check(gradients, a, mapped)
    # Differentiation of a mapped function: sums over the calls for what was not mapped.
    given = {name: jnp.asarray(array) for name, array in stacked(a, mapped).items()}
    axes = ({name: 0 if name in mapped else None for name in a},)
    total = jax.jit(jax.grad(lambda w: jnp.sum(jax.vmap(lambda a: u(a, "all"), axes)({**given, **w}) ** 2)))(
        {name: given[name] for name in names}
    )
    each = jax.jit(jax.vmap(gradients, axes))(given)
    for name in names:
        expected = each[name] if name in mapped else each[name].sum(0)
        np.testing.assert_allclose(total[name], expected, rtol=1e-12, atol=1e-13)


def test_what_is_one_call() -> None:
    a = arrays("all")
    assert not is_loop(lambda a: u(a, "all"), a, ("features", "tv_edge", "volume", "center1"))
    assert is_loop(lambda a: u(a, "all"), a, ("features", "eps"))

    def gradient(name: str) -> Callable[..., Any]:
        return lambda a: jax.grad(lambda w: jnp.sum(u({**a, name: w}, "all")))(a[name])

    for name, one_call in {"features": True, "tv_edge": True, "eps": False, "td_sigma": False}.items():
        text = str(
            jax.make_jaxpr(jax.vmap(gradient(name), ({n: 0 if n == "features" else None for n in a},)))(
                stacked(a, ("features",))
            )
        )
        assert ("scan" in text) != one_call, name


def test_one_image_each() -> None:
    """Shared edges of a single image are one for each call when their gradient is wanted."""
    a = arrays("tv_edge", shape=(1, 2, 5, 4))

    def gradients(a: dict[str, Any]) -> Any:
        return jax.grad(lambda w: jnp.sum(u({**a, **w}, "tv_edge") ** 2))(
            {n: a[n] for n in ("features", "tv_edge")}
        )

    check(gradients, a, ("features",))


def test_nested() -> None:
    a = arrays("volume")
    features = jnp.stack([jnp.asarray(a["features"]) * factor for factor in (1.0, 0.9, 1.2, 1.1, 0.8, 1.3)])

    def gradient(features: Any) -> Any:
        return jax.grad(lambda f: jnp.sum(u({**a, "features": f}, "volume") ** 2))(features)

    alone = jax.jit(gradient)
    expected = jnp.stack([alone(one) for one in features])
    found = jax.jit(jax.vmap(jax.vmap(gradient)))(features.reshape(2, 3, *features.shape[1:]))
    same(found.reshape(expected.shape), expected)


def test_residuals_taken_apart() -> None:
    """Calls that were folded have no state of their own. Mapped backward passes compute it again; a single one
    gives NaN, never a wrong number."""
    a = arrays("volume", shape=(1, 2, 2, 3))
    features = jnp.stack([jnp.asarray(a["features"]) * factor for factor in (1.0, 0.9, 1.2)])
    _, pulls = jax.vmap(lambda f: jax.vjp(lambda f: u({**a, "features": f}, "volume"), f))(features)
    incoming = jnp.asarray(np.random.default_rng(0).normal(size=features.shape))
    alone = [jax.vjp(lambda f: u({**a, "features": f}, "volume"), f)[1] for f in features]
    expected = jnp.stack([pull(g)[0] for pull, g in zip(alone, incoming)])
    for order in ([0, 1, 2], [1, 1, 2]):
        index = np.array(order)
        some = jax.tree.map(lambda leaf, index=index: leaf[index], pulls)
        same(jax.vmap(lambda pull, g: pull(g)[0])(some, incoming[index]), expected[index])
    # Mapped twice: a condition on the state must not become a choice between two results, both computed.
    _, pulls = jax.vmap(jax.vmap(lambda f: jax.vjp(lambda f: u({**a, "features": f}, "volume"), f)))(
        features[None]
    )
    same(jax.vmap(jax.vmap(lambda pull, g: pull(g)[0]))(pulls, incoming[None])[0], expected)
    one = jax.tree.map(lambda leaf: leaf[0, 1], pulls)
    assert np.isnan(one(incoming[1])[0]).all()


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_mapped_condition(wrap: Any) -> None:
    """It computes all branches for all calls and chooses, among their residuals too: the gradient of one call
    must not see the state of another branch."""
    random = np.random.default_rng(0)
    features, incoming = random.normal(size=(3, 1, 2, 4)), random.normal(size=(1, 2, 4))
    branches = [lambda f, k=k: sj.softmax(k * f, 0.5, 6, tv=sj.TV(0.3)) for k in (1.0, 1.5, 0.7)]

    def value(f: Any, which: Any) -> Any:
        return jnp.sum(jax.lax.switch(which, branches, f) * incoming)

    which = jnp.array([2, 0, 1])
    found = wrap(jax.vmap(jax.grad(value)))(features, which)
    same(found, jnp.stack([jax.grad(value)(f, k) for f, k in zip(features, which)]))


def test_mapped_backward_alone() -> None:
    """`jacrev` has one forward pass for all rows."""
    a = arrays("all", shape=(1, 3, 2, 3))
    rows = jax.jacrev(lambda f: u({**a, "features": f}, "all"))(jnp.asarray(a["features"]))
    _, pull = jax.vjp(lambda f: u({**a, "features": f}, "all"), jnp.asarray(a["features"]))
    for index in itertools.product(*map(range, rows.shape[:4])):
        same(rows[index], pull(jnp.zeros(rows.shape[:4]).at[index].set(1))[0])


@pytest.mark.parametrize("mapped", [("scores",), ("edge",), ("scores", "edge", "conductance"), ("x0",)])
@pytest.mark.parametrize("shared", [False, True])
def test_softcut(mapped: tuple[str, ...], shared: bool) -> None:
    random = np.random.default_rng(4)
    classes = 1 if shared else 2
    a = {
        "scores": random.normal(size=(2, 2, 5, 4)),
        "edge": random.uniform(0, 2, (2, classes, 4, 4)),
        "conductance": random.uniform(0.5, 2, (2, classes, 5, 4)),
        "x0": random.normal(size=(2, 2, 5, 4)),
    }
    other = random.uniform(0, 2, (2, classes, 5, 3))

    def x(a: dict[str, Any]) -> Any:
        return sj.softcut(a["scores"], (a["edge"], other), conductance=a["conductance"], x0=a["x0"])

    def gradients(a: dict[str, Any]) -> Any:
        return jax.grad(lambda w: jnp.sum(x({**a, **w}) ** 2))(
            {n: a[n] for n in ("scores", "edge", "conductance")}
        )

    def second(a: dict[str, Any]) -> Any:
        return jax.grad(lambda e: jnp.sum(gradients({**a, "edge": e})["scores"] ** 2))(a["edge"])

    check(x, a, mapped)
    check(gradients, a, mapped)
    check(second, a, mapped)
    assert not is_loop(x, a, mapped)


LOSSES = [
    *(("cross_entropy", "none", mapped) for mapped in (("scores",), ("labels",), ("class_weights",))),
    ("cross_entropy", "none", ("scores", "labels", "mask")),
    ("cross_entropy", "mean", ("scores",)),
    ("dice", "none", ("scores", "mask")),
    ("dice", "mean", ("labels",)),
]


@pytest.mark.parametrize("name, reduction, mapped", LOSSES)
def test_losses(name: str, reduction: str, mapped: tuple[str, ...]) -> None:
    random = np.random.default_rng(6)
    a = {
        "scores": random.normal(size=(2, 3, 5, 4)),
        "labels": random.integers(0, 3, (2, 5, 4)).astype(np.uint8),
        "mask": (random.uniform(size=(1, 5, 4)) < 0.8).astype(np.uint8),
        "class_weights": random.uniform(0.5, 2, 3),
    }

    def value(a: dict[str, Any]) -> Any:
        return getattr(sj.losses, name)(
            a["scores"],
            a["labels"],
            reduction=reduction,
            mask=a["mask"],
            class_weights=a["class_weights"],
        )

    check(value, a, mapped)
    check(lambda a: jax.grad(lambda s: jnp.sum(value({**a, "scores": s}) ** 2))(a["scores"]), a, mapped)
    assert is_loop(value, a, mapped) == (reduction == "mean" or "class_weights" in mapped)


def test_losses_bounds() -> None:
    random = np.random.default_rng(6)
    a = {
        "scores": random.normal(size=(2, 3, 5, 4)),
        "lower": random.uniform(2, 8, (1, 3)),
        "groups": np.array([0, 0], np.int32),
    }

    def gradients(a: dict[str, Any], **more: Any) -> Any:
        def value(w: dict[str, Any]) -> Any:
            return jnp.sum(sj.losses.size_penalty(w["scores"], w["lower"], reduction="none", **more) ** 2)

        return jax.grad(value)({name: a[name] for name in ("scores", "lower")})

    for mapped in (("scores",), ("lower",)):
        check(gradients, a, mapped)
    check(lambda a: gradients(a, groups=a["groups"]), a, ("scores", "lower"))
