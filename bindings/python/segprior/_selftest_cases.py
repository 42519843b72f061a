"""What `segprior selftest` computes: every operator on a tiny problem in float64.

A case compares results with what it gets elsewhere (a formula in NumPy, a property, or a number recorded from
a build that passed all tests) and gradients with central differences of the forward pass. It returns both
errors, in units of the largest value compared; None for the second where there is no gradient.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from . import losses, metrics
from ._cli_device import Place
from .csr import csr_solve
from .priors import TV, Star, ThresholdDynamics, Volume
from .softcut import softcut, softcut_csr
from .softmax import softmax

Errors = tuple[float, "float | None"]
Arrays = dict[str, np.ndarray]
_STEP = 1e-6  # of central differences: truncation 1e-12, rounding 1e-10


def _wave(*shape: int, phase: float = 0.0) -> np.ndarray:
    """Values in [-1, 1] without a pattern; the same everywhere, which random generators do not promise."""
    return np.sin(phase + 37.0 * np.arange(1, 1 + int(np.prod(shape))) ** 1.5).reshape(shape)


_SHAPE = (2, 3, 6, 7)
_FEATURES = _wave(*_SHAPE)
_WEIGHTS = _wave(*_SHAPE, phase=1.0)  # of the scalar whose derivative is checked
_FIELD = 1 + 0.5 * _wave(2, 6, 7, phase=2.0)
_VOLUME = np.array([[8.0, 14.0, 20.0], [16.0, 16.0, 10.0]])
_STAR_CENTER = np.array([[2.3, 3.1], [3.4, 2.6]])


def _difference(found: Any, expected: Any) -> float:
    expected = np.asarray(expected, np.float64)
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def _worst(*errors: float) -> float:
    """The largest; NaN if one is, which Python's max() can lose."""
    return float(np.max(errors))


def _derivative_error(value: Callable[[Arrays], float], at: Arrays, gradients: Arrays) -> float:
    """Largest difference, over the arguments, of the gradient from a central difference along a direction."""
    worst = 0.0
    for name, array in at.items():
        direction = _wave(*array.shape, phase=3.0)
        up, down = (value({**at, name: array + sign * _STEP * direction}) for sign in (1, -1))
        expected = (up - down) / (2 * _STEP)
        gradient = float((gradients[name].reshape(array.shape) * direction).sum())
        worst = _worst(worst, abs(gradient - expected) / max(1.0, abs(expected)))
    return worst


# ---- Softmax -----------------------------------------------------------------------------------------------


def _softmax_case(
    place: Place,
    expected: float,
    at: Arrays,
    priors: Callable[[Arrays], dict[str, Any]],
    mode: str = "unrolled",
) -> Errors:
    """sum(weights * u) against a recorded number, and the gradients of all arguments `at`.

    Args:
        at: features, eps and the priors' parameters, named as the fields of `segprior.Gradients`.
        priors: the arguments of `softmax` made from these, which are arrays of the device then.
    """

    def run(values: Arrays) -> Any:
        arrays = {name: place.put(value) for name, value in values.items()}
        return softmax(arrays["features"], arrays["eps"], **priors(arrays))

    def value(values: Arrays) -> float:
        return float((place.get(run(values).u) * _WEIGHTS).sum())

    result = run(at)
    u = place.get(result.u)
    forward = _worst(_difference((u * _WEIGHTS).sum(), expected), -u.min())
    g = result.backward(place.put(_WEIGHTS), mode)
    fields = {name: getattr(g, name) for name in at}
    lists = {name: field[0] if isinstance(field, list) else field for name, field in fields.items()}
    return forward, _derivative_error(value, at, {name: place.get(field) for name, field in lists.items()})


def _with(**parameters: Any) -> Arrays:
    arrays = {name: np.asarray(value, float) for name, value in parameters.items()}
    return {"features": _FEATURES, "eps": np.array([0.7]), **arrays}


def softmax_plain(place: Place) -> Errors:
    scaled = np.exp(_FEATURES / 0.7)
    expected = float((_WEIGHTS * scaled / scaled.sum(1, keepdims=True)).sum())
    return _softmax_case(place, expected, _with(), lambda a: {})


def softmax_tv(place: Place) -> Errors:
    at = _with(tv_lam=[0.3], tv_tau=[0.2], tv_edge=_FIELD)
    return _softmax_case(
        place,
        TV_VALUE,
        at,
        lambda a: {"tv": TV(a["tv_lam"], a["tv_tau"], a["tv_edge"]), "spacing": (1.0, 1.5), "iters": 20},
    )


def softmax_volume(place: Place) -> Errors:
    return _softmax_case(
        place, VOLUME_VALUE, _with(volume=_VOLUME), lambda a: {"volume": Volume(a["volume"]), "iters": 5}
    )


def softmax_bounds(place: Place) -> Errors:
    at = _with(volume_lower=_VOLUME - 3, volume_upper=_VOLUME - 1)
    return _softmax_case(
        place,
        BOUNDS_VALUE,
        at,
        lambda a: {"volume": Volume(lower=a["volume_lower"], upper=a["volume_upper"]), "iters": 5},
    )


def softmax_threshold_dynamics(place: Place) -> Errors:
    at = _with(td_lam=[0.4], td_sigma=[1.3], td_edge=_FIELD)
    return _softmax_case(
        place,
        TD_VALUE,
        at,
        lambda a: {"td": ThresholdDynamics(a["td_lam"], 5, a["td_sigma"], edge=a["td_edge"]), "iters": 6},
    )


def softmax_star(place: Place) -> Errors:
    at = _with(star_center=_STAR_CENTER, star_tau=[0.3])
    return _softmax_case(
        place, STAR_VALUE, at, lambda a: {"star": [Star(1, a["star_center"], a["star_tau"])], "iters": 10}
    )


def softmax_all(place: Place) -> Errors:
    """Every prior at once, with masked voxels."""
    at = _with(tv_lam=[0.2], td_lam=[0.3], volume=_VOLUME - 1, star_center=_STAR_CENTER)
    mask = np.ones(_SHAPE[2:], np.uint8)
    mask[0, :3] = 0
    return _softmax_case(
        place,
        ALL_VALUE,
        at,
        lambda a: {
            "tv": TV(a["tv_lam"]),
            "td": ThresholdDynamics(a["td_lam"], 3, 1.0),
            "volume": Volume(a["volume"]),
            "star": [Star(0, a["star_center"])],
            "mask": place.put(mask),
            "iters": 8,
        },
    )


def softmax_implicit(place: Place) -> Errors:
    """The gradient of the limit, against differences of converged iterations."""
    return _softmax_case(
        place,
        IMPLICIT_VALUE,
        _with(tv_lam=[0.05]),
        lambda a: {"tv": TV(a["tv_lam"]), "iters": 20000, "tol": 1e-13, "accelerate": False},
        "implicit",
    )


# ---- SoftCut -----------------------------------------------------------------------------------------------

_MATRIX = {
    "edges0": 2 + _wave(2, 1, 5, 7, phase=4.0),
    "edges1": 2 + _wave(2, 1, 6, 6, phase=5.0),
    "conductance": 1.5 + _wave(2, 1, 6, 7, phase=6.0),
}


def _solve(place: Place, values: Arrays) -> Any:
    arrays = {name: place.put(value) for name, value in values.items()}
    edges = arrays["edges0"], arrays["edges1"]
    exact: dict[str, Any] = {"tol": 1e-13, "backward_tol": 1e-13, "solver": "cg"}
    return softcut(arrays["scores"], edges, conductance=arrays["conductance"], **exact)


def _times_matrix(x: np.ndarray) -> np.ndarray:
    """(D + L(w)) x, by the definition."""
    product = _MATRIX["conductance"] * x
    for axis, edges in ((2, _MATRIX["edges0"]), (3, _MATRIX["edges1"])):
        flow = edges * np.diff(x, axis=axis)
        widths = [(1, 1) if a == axis else (0, 0) for a in range(4)]
        product -= np.diff(np.pad(flow, widths), axis=axis)
    return product


def softcut_first(place: Place) -> Errors:
    at = {"scores": _FEATURES, **_MATRIX}
    r = _solve(place, at)
    g = r.backward(place.put(_WEIGHTS))
    found = dict(zip(at, (g.scores, *g.edges, g.conductance)))
    error = _derivative_error(
        lambda values: float((place.get(_solve(place, values).x) * _WEIGHTS).sum()),
        at,
        {name: place.get(array) for name, array in found.items()},
    )
    return _difference(_times_matrix(place.get(r.x)), _FEATURES), error


def softcut_second(place: Place) -> Errors:
    """Gradients of a function of the gradients of the edges."""
    cotangents = [_wave(*_MATRIX[name].shape, phase=7.0) for name in ("edges0", "edges1")]

    def gradients(values: Arrays) -> Any:
        return _solve(place, values).backward(place.put(_WEIGHTS))

    def value(values: Arrays) -> float:
        return float(sum((place.get(g) * c).sum() for g, c in zip(gradients(values).edges, cotangents)))

    at = {"scores": _FEATURES, **_MATRIX}
    g = gradients(at)
    h = g.backward(edges=tuple(map(place.put, cotangents)))
    found = dict(zip(at, (h.scores, *h.edges, h.conductance)))
    error = _derivative_error(value, at, {name: place.get(array) for name, array in found.items()})
    return _difference(_times_matrix(place.get(g.scores)), _WEIGHTS), error


def csr(place: Place) -> Errors:
    """SoftCut's matrix of the first image in sparse rows, solved with incomplete Cholesky."""
    arrays = {name: place.put(value) for name, value in {"scores": _FEATURES, **_MATRIX}.items()}
    edges = arrays["edges0"], arrays["edges1"]
    rows, columns, values = softcut_csr(arrays["scores"], edges, conductance=arrays["conductance"])
    right = _FEATURES[0].reshape(3, -1)
    found = csr_solve(rows, columns, values[0], place.put(right), tol=1e-13)
    x = np.zeros(_SHAPE)
    x[0] = place.get(found.x).reshape(_SHAPE[1:])
    return _difference(_times_matrix(x)[0], _FEATURES[0]), None


# ---- Losses, proposals, scores -----------------------------------------------------------------------------

_LABELS = np.arange(2 * 6 * 7, dtype=np.uint8).reshape(2, 6, 7) % 3


def cross_entropy(place: Place) -> Errors:
    log_p = _FEATURES - np.log(np.exp(_FEATURES).sum(1, keepdims=True))
    expected = -np.take_along_axis(log_p, _LABELS[:, None].astype(np.int64), 1).mean()
    labels = place.put(_LABELS)

    def run(values: Arrays) -> Any:
        return losses.cross_entropy(place.put(values["scores"]), labels, log_offset=0.0)

    at = {"scores": _FEATURES}
    r = run(at)
    found = {"scores": place.get(r.backward().scores)}
    error = _derivative_error(lambda values: float(place.get(run(values).value)), at, found)
    return _difference(place.get(r.value), expected), error


def combined_loss(place: Place) -> Errors:
    at = {"scores": _FEATURES, "lower": _VOLUME + 1, "upper": _VOLUME + 3}
    labels = place.put(_LABELS)

    def run(values: Arrays) -> Any:
        bounds = {name: place.put(values[name]) for name in ("lower", "upper")}
        terms: dict[str, Any] = {
            "cross_entropy": 1.0,
            "focal": 0.5,
            "dice": 1.0,
            "focal_dice": 0.5,
            "size": 0.01,
        }
        return losses.combined(place.put(values["scores"]), labels, **terms, **bounds)

    r = run(at)
    g = r.backward()
    found = {name: place.get(getattr(g, name)) for name in at}
    error = _derivative_error(lambda values: float(place.get(run(values).value)), at, found)
    return _difference(place.get(r.value), COMBINED_VALUE), error


def proposal(place: Place) -> Errors:
    """The sizes hold, and Q is the softmax of the logits plus a number per class."""
    r = losses.lagrangian_proposal(place.put(_FEATURES), _VOLUME, _VOLUME, tol=1e-12)
    scaled = np.exp(_FEATURES + place.get(r.dual)[:, :, None, None])
    q = place.get(r.proposal)
    form = _difference(q, scaled / scaled.sum(1, keepdims=True))
    return _worst(form, _difference(q.sum((2, 3)), _VOLUME)), None


def counts(place: Place) -> Errors:
    """Confusion matrix, scores, volumes, boundaries: exact."""
    found = np.roll(_LABELS, 1, axis=2)
    matrix = metrics.confusion_matrix(place.put(_LABELS), place.put(found), classes=3)
    pairs = (3 * _LABELS.astype(np.int64) + found).reshape(2, -1)
    expected = np.stack([np.bincount(pair, minlength=9).reshape(3, 3) for pair in pairs])
    right = expected.trace(axis1=1, axis2=2) / expected.sum((1, 2))
    volumes = np.stack([np.bincount(image.ravel(), minlength=3) for image in _LABELS])
    faces = sum((np.diff(_LABELS.astype(int), axis=axis) != 0).sum() for axis in (1, 2))
    errors = [
        _difference(place.get(matrix), expected),
        _difference(place.get(metrics.scores(matrix).accuracy), right),
        _difference(place.get(metrics.volumes(place.put(_LABELS), 3)), volumes),
        _difference(place.get(metrics.boundary_length(place.put(_LABELS), 3)).sum(), 2 * faces),
    ]
    return _worst(*errors), None


def components(place: Place) -> Errors:
    """Three pieces over faces, two over corners too."""
    picture = np.array([[[1, 1, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0]]], np.uint8)
    numbered = np.array([[[1, 1, 0, 0, 2], [0, 0, 3, 0, 0], [0, 0, 3, 0, 0]]])
    faces = metrics.components(place.put(picture))
    full = metrics.components(place.put(picture), connectivity="full")
    counted = _difference(place.get(full.count), [2])
    return _worst(_difference(place.get(faces.labels), numbered), counted), None


# Recorded from a build whose results agree with the references in tests/ref.
TV_VALUE = -1.0688778132623964
VOLUME_VALUE = 8.044112584375831
BOUNDS_VALUE = 7.924849534859746
TD_VALUE = 9.853598906888736
STAR_VALUE = 7.473937910849136
ALL_VALUE = 1.5422032406422064
IMPLICIT_VALUE = 7.703157806746003
COMBINED_VALUE = 2.7211409357620355

CASES: dict[str, Callable[[Place], Errors]] = {
    "softmax": softmax_plain,
    "softmax, TV": softmax_tv,
    "softmax, volumes": softmax_volume,
    "softmax, volume bounds": softmax_bounds,
    "softmax, threshold dynamics": softmax_threshold_dynamics,
    "softmax, star shape": softmax_star,
    "softmax, all priors, mask": softmax_all,
    "softmax, implicit gradient": softmax_implicit,
    "softcut": softcut_first,
    "softcut, second derivatives": softcut_second,
    "csr_solve": csr,
    "cross entropy": cross_entropy,
    "combined loss": combined_loss,
    "proposal": proposal,
    "counts and scores": counts,
    "components": components,
}
