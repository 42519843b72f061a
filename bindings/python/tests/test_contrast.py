"""`segprior.contrast_edges`."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import pytest

import segprior
from segprior import contrast_edges


def test_weights_of_a_small_image() -> None:
    image = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 3.0]])
    down, across = contrast_edges(image, 2.0, 0.5)
    np.testing.assert_allclose(down, 2 * np.exp(-0.5 * np.array([[[[0, 1, 4]]]])), rtol=1e-6)
    np.testing.assert_allclose(across, 2 * np.exp(-0.5 * np.array([[[[1, 0], [0, 9]]]])), rtol=1e-6)
    assert down.dtype == np.float32
    edges, diagonals = contrast_edges(image, 2.0, 0.5, diagonals=True, dtype=np.float64)
    assert edges[0].dtype == np.float64 and np.allclose(edges[1], across)
    falling, rising = 2 / np.sqrt(2) * np.exp(-0.5 * np.array([[0, 4], [1, 1]]))
    np.testing.assert_allclose(diagonals[0][0, 0], [falling])
    np.testing.assert_allclose(diagonals[1][0, 0], [rising])


def test_automatic_beta() -> None:
    image = np.random.default_rng(0).random((5, 6, 7))
    edges = contrast_edges(image, dtype=np.float64)
    differences = [np.diff(image, axis=m).ravel() ** 2 for m in range(3)]
    beta = 1 / (2 * np.concatenate(differences).mean())
    for m in range(3):
        np.testing.assert_allclose(edges[m][0, 0], np.exp(-beta * np.diff(image, axis=m) ** 2))
    assert (contrast_edges(np.ones((3, 4)), 0.5)[0] == 0.5).all()
    assert contrast_edges(np.ones(1))[0].shape == (1, 1, 0)


def test_floor() -> None:
    (w,) = contrast_edges([0.0, 1.0, 9.0], 2.0, 1.0, floor=1e-3)
    np.testing.assert_allclose(w[0, 0], [2 * np.exp(-1), 2e-3], rtol=1e-6)


def test_channels() -> None:
    image = np.random.default_rng(0).random((4, 5, 3))
    expected = np.exp(-2 * (np.diff(image, axis=0) ** 2).sum(2))
    np.testing.assert_allclose(contrast_edges(image, 1, 2, channel_axis=-1)[0][0, 0], expected, rtol=1e-6)
    first = np.ascontiguousarray(np.moveaxis(image, 2, 0))
    np.testing.assert_allclose(contrast_edges(first, 1, 2, channel_axis=0)[0][0, 0], expected, rtol=1e-6)


def test_what_softcut_takes() -> None:
    image = np.random.default_rng(0).random((8, 9))
    edges, diagonals = contrast_edges(image, 10.0, diagonals=True, dtype=np.float16)
    r = segprior.softcut(np.float32(image)[None, None], edges, diagonals, tol=1e-5)
    assert r.info[0, 0].status == segprior.Status.CONVERGED


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: contrast_edges(np.zeros((2, 2, 2, 2))),
        segprior.InvalidValueError,
        r"image has shape \(2, 2, 2, 2\)",
    ),
    (lambda: contrast_edges(3.0), segprior.InvalidValueError, r"image has shape \(\)"),
    (lambda: contrast_edges("cat"), segprior.InvalidTypeError, "image, channel_axis = None: "),
    (
        lambda: contrast_edges(np.zeros((2, 2)), channel_axis=2),
        segprior.InvalidTypeError,
        "channel_axis = 2: ",
    ),
    (lambda: contrast_edges([1, np.nan]), segprior.InvalidValueError, "image holds NaN or infinite values"),
    (lambda: contrast_edges([1, 2], -1), segprior.InvalidValueError, r"weight = -1.0; it must be >= 0"),
    (lambda: contrast_edges([1, 2], "much"), segprior.InvalidTypeError, "weight is 'much'"),
    (lambda: contrast_edges([1, 2], 1, -1), segprior.InvalidValueError, "beta = -1.0; it must be >= 0"),
    (lambda: contrast_edges([1, 2], 1, "best"), segprior.InvalidValueError, "beta is 'best'; .* or 'auto'"),
    (lambda: contrast_edges([1, 2], floor=2), segprior.InvalidValueError, "floor = 2.0; it must be 0 .. 1"),
    (lambda: contrast_edges([1, 2], diagonals=True), segprior.InvalidValueError, "diagonals = True needs 2"),
    (lambda: contrast_edges([1, 2], dtype=int), segprior.InvalidTypeError, "dtype is int64; it must be"),
]


@pytest.mark.parametrize("call, kind, text", WRONG)
def test_wrong_arguments(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        call()
