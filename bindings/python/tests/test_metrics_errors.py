"""Wrong arguments of `segprior.metrics`: each error names the argument, its value and the rule."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import pytest
from test_metrics import make

import segprior
from segprior import metrics

T, P = make((2, 6, 7), 3)
T[T == 255] = 0
VALUE: list[tuple[Callable[[], Any], str]] = [
    (lambda: metrics.confusion_matrix(T), r"prediction and scores: give one of them"),
    (lambda: metrics.confusion_matrix(T, P, scores=P), r"prediction and scores: give one of them"),
    (lambda: metrics.confusion_matrix(T, P), r"classes is None; it is needed with prediction"),
    (lambda: metrics.confusion_matrix(T, P, classes=0), r"classes = 0; it must be an integer >= 1"),
    (
        lambda: metrics.confusion_matrix(T, P, classes=257),
        r"classes = 257; a confusion matrix has 1 .. 256$",
    ),
    (
        lambda: metrics.confusion_matrix(T, P, classes=10**6),
        r"classes = 1000000; a confusion matrix has 1 .. 256",
    ),
    (
        lambda: metrics.confusion_matrix(T, scores=np.zeros((2, 300, 6, 7))),
        r"classes = 300; a confusion matrix",
    ),
    (lambda: metrics.confusion_matrix(T, P[:1], classes=3), r"prediction: shape \[1, 6, 7\].*\[2, 6, 7\]"),
    (
        lambda: metrics.confusion_matrix(T, P, classes=3, mask=T[:, :3] > 5),
        r"mask has shape \(2, 3, 7\); it must be .* here \[6, 7\] or \[1, 6, 7\] or \[2, 6, 7\]$",
    ),
    (lambda: metrics.confusion_matrix(T, P, classes=3, invalid="drop"), r"invalid is 'drop'; it must be"),
    (lambda: metrics.confusion_matrix(T, P, classes=3, ignore_index=0.5), r"ignore_index = 0.5"),
    (lambda: metrics.confusion_matrix(T, scores=np.zeros((2, 3))), r"scores has shape \(2, 3\)"),
    (
        lambda: metrics.confusion_matrix(T, scores=np.zeros((2, 3, 6, 7)), classes=4),
        r"classes = 4, but scores have 3",
    ),
    (
        lambda: metrics.confusion_matrix(T, scores=np.zeros((2, 3, 6, 6))),
        r"scores.*\[2, 3, 6, 6\]|labels.*\[2, 6, 6\]",
    ),
    (
        lambda: metrics.confusion_matrix(T[0, 0], P, classes=3),
        r"labels has shape \(7,\); it must be \[B, \*S\]",
    ),
    (
        lambda: metrics.scores(np.zeros((2, 3, 4), np.int64)),
        r"matrix has shape \(2, 3, 4\); it must be \[N, I, I\]",
    ),
    (lambda: metrics.scores(np.zeros(9, np.int64)), r"matrix has shape \(9,\)"),
    (lambda: metrics.volumes(T, 0), r"classes = 0"),
    (lambda: metrics.volumes(T[:, ::2], 3), r"labels is not C-contiguous"),
    (lambda: metrics.boundary_length(T, 3, (1, 2, 3)), r"spacing has 3 values; labels have 2 axes"),
    (lambda: metrics.boundary_length(T[:, None], 3, (1,)), r"spacing has 1 values; labels have 2 axes"),
    (lambda: metrics.boundary_length(T, 3, np.ones(3)), r"spacing has 3 values; labels have 2 axes"),
    (lambda: metrics.boundary_length(T, 3, (1, 0)), r"spacing\[1\] = 0.0; it must be > 0 and finite$"),
    (lambda: metrics.boundary_length(T, 3, -1), r"spacing = -1.0; it must be > 0 and finite$"),
    (lambda: metrics.boundary_length(T, 3, float("inf")), r"spacing = inf; it must be > 0 and finite$"),
    (lambda: metrics.boundary_length(T, 3, np.array([1, np.nan])), r"spacing\[1\] = nan; it must be > 0"),
    (
        lambda: metrics.components(T, connectivity="faces"),
        r"connectivity is 'faces'; it must be 1, 2 or 'full'",
    ),
    (lambda: metrics.components(T, connectivity=3), r"connectivity = 3; it must be 1, 2 or 'full'"),
    (lambda: metrics.components(T[:, None], connectivity=4), r"connectivity = 4; it must be 1, 2 or 'full'"),
    (lambda: metrics.components(T, background=0.5), r"background = 0.5; it must be an integer"),
    (lambda: metrics.components(np.zeros((1, 1, 1, 1, 2), int)[0, 0, 0, 0]), r"map has shape \(2,\)"),
    (lambda: metrics.component_counts(T, 0), r"classes = 0"),
]
TYPE: list[tuple[Callable[[], Any], str]] = [
    (lambda: metrics.confusion_matrix([[0]], P, classes=3), r"labels is list; it must be an array"),
    (
        lambda: metrics.confusion_matrix(T * 1.0, P, classes=3),
        r"labels has dtype float64; it must be bool, uint8",
    ),
    (
        lambda: metrics.confusion_matrix(T, P * 1.0, classes=3),
        r"prediction has dtype float64; it must be bool",
    ),
    (lambda: metrics.confusion_matrix(T, scores=P), r"scores has dtype int64; it must be float32"),
    (
        lambda: metrics.confusion_matrix(T, P, classes=3, mask=T),
        r"mask has dtype int64; it must be bool or uint8",
    ),
    (lambda: metrics.scores(np.zeros((3, 3))), r"matrix has dtype float64; it must be int32 or int64"),
    (
        lambda: metrics.components(T.astype(np.int8)),
        r"map has dtype int8; it must be bool, uint8, int32 or int64",
    ),
    (lambda: metrics.components(T, by_value="no"), r"by_value is 'no'; it must be True or False"),
    (lambda: metrics.boundary_length(T, 3, "1"), r"spacing is '1'; it must be a number"),
]


@pytest.mark.parametrize("call, text", VALUE)
def test_values(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(segprior.InvalidValueError, match=text) as raised:
        call()
    assert "inputs." not in str(raised.value) and "SEGPRIOR_" not in str(raised.value)


@pytest.mark.parametrize("call, text", TYPE)
def test_types(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(segprior.InvalidTypeError, match=text):
        call()
