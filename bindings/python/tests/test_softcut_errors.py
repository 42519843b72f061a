"""Wrong arguments of the SoftCut calls: each error names the argument, its value and the rule."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import pytest

import segprior

P = np.zeros((2, 3, 6, 7))
W = (np.ones((2, 3, 5, 7)), np.ones((2, 3, 6, 6)))
DIAGONALS = (np.ones((2, 3, 5, 6)), np.ones((2, 3, 5, 6)))
INFINITE, NAN = float("inf"), float("nan")
LINE = {"scores": np.zeros((1, 1, 4)), "edges": (np.ones((1, 1, 3)),)}


def softcut(**arguments: Any) -> segprior.SoftcutResult:
    return segprior.softcut(**{"scores": P, "edges": W, **arguments})


def backward(grad_x: Any = P, **arguments: Any) -> Any:
    return softcut().backward(grad_x, **arguments)


VALUE: list[tuple[Callable[[], Any], str]] = [
    (lambda: softcut(scores=np.zeros((3, 4))), r"scores has shape \(3, 4\); it must be \[B, K, \*S\]"),
    (lambda: softcut(edges=W[:1]), r"edges has 1 members; it must have 2, one array per spatial axis"),
    (lambda: softcut(edges=()), r"edges has 0 members"),
    (lambda: softcut(edges=(W[1], W[0])), r"edges\[0\].*\[2, 3, 6, 6\].*\[2, 3, 5, 7\]"),
    (lambda: softcut(edges=(W[0], W[1][:, :1].copy())), r"edges\[1\].*\[2, 1, 6, 6\].*\[2, 3, 6, 6\]"),
    (lambda: softcut(edges=(W[0], W[1][..., ::-1])), r"edges\[1\] is not C-contiguous"),
    (lambda: softcut(diagonals=DIAGONALS[:1]), r"diagonals has 1 members; it must have 2, one per direction"),
    (lambda: softcut(diagonals=(W[0], W[0])), r"diagonals\[0\].*\[2, 3, 5, 7\].*\[2, 3, 5, 6\]"),
    (lambda: softcut(**LINE, diagonals=DIAGONALS), r"diagonals\[0\] is given, which needs 2 spatial axes"),
    (lambda: softcut(conductance=np.ones((2, 1, 6, 7))), r"conductance.*\[2, 1, 6, 7\].*\[2, 3, 6, 7\]"),
    (lambda: softcut(x0=np.ones((2, 3, 6, 6))), r"x0.*\[2, 3, 6, 6\].*\[2, 3, 6, 7\]"),
    (lambda: softcut(solver="lu"), r"solver is 'lu'; it must be 'auto', 'cg', 'jacobi', 'multigrid', 'cheb"),
    (lambda: softcut(solver=1), r"solver is 1; it must be 'auto'"),
    (lambda: softcut(norm="max"), r"norm is 'max'; it must be 'l2', 'l1'"),
    (lambda: softcut(path="fast"), r"path is 'fast'; it must be 'auto', .* 'cluster', 'persistent'"),
    (lambda: softcut(tol=0), r"tol = 0.0; it must be > 0"),
    (lambda: softcut(tol=NAN), r"tol = nan; it must be > 0"),
    (lambda: softcut(tol=INFINITE), r"^tol = inf; it must be > 0 and finite$"),
    (lambda: softcut(backward_tol=-1), r"backward_tol = -1.0; it must be > 0"),
    (lambda: softcut(backward_tol=INFINITE), r"^backward_tol = inf; it must be > 0 and finite$"),
    (lambda: softcut(max_iters=0), r"max_iters = 0; it must be an integer >= 1"),
    (lambda: softcut(max_iters=2.5), r"max_iters = 2.5; it must be an integer"),
    (lambda: softcut(backward_max_iters=0), r"backward_max_iters = 0; it must be an integer >= 1"),
    (lambda: softcut(threads=-1), r"threads = -1"),
    (lambda: backward(P[:1]), r"grad_x.*\[1, 3, 6, 7\].*\[2, 3, 6, 7\]"),
    (lambda: backward(wanted=["conductance"]), r"wanted has 'conductance'; .* gradients for scores, edges$"),
    (lambda: backward(wanted=[["edges"]]), r"wanted has \['edges'\]"),
    (lambda: backward().backward(scores=P[:, :, 1:].copy()), r"scores.*\[2, 3, 5, 7\].*\[2, 3, 6, 7\]"),
    (lambda: backward().backward(edges=(W[1], None)), r"edges\[0\].*\[2, 3, 6, 6\].*\[2, 3, 5, 7\]"),
    (lambda: backward().backward(edges=W[:1]), r"edges has 1 members"),
    (lambda: backward().backward(diagonals=DIAGONALS), r"diagonals is given, but softcut was called without"),
    (lambda: backward().backward(conductance=P), r"conductance is given, but softcut was called without"),
    (lambda: segprior.softcut_csr(P, W[::-1]), r"edges\[0\].*\[2, 3, 6, 6\].*\[2, 3, 5, 7\]"),
]

TYPE: list[tuple[Callable[[], Any], str]] = [
    (lambda: softcut(scores=[[1.0]]), r"scores is list; it must be an array"),
    (
        lambda: softcut(scores=P.astype(np.float16)),
        r"scores has dtype float16; it must be float32 or float64",
    ),
    (lambda: softcut(edges=W[0]), r"edges is ndarray; it must be a tuple, one array per spatial axis"),
    (lambda: softcut(edges=(W[0], None)), r"edges\[1\] is NoneType; it must be an array"),
    (lambda: softcut(edges=(W[0], W[1].astype(int))), r"edges\[1\] has dtype int64; it must be"),
    (lambda: softcut(edges=tuple(w.astype(np.float32) for w in W)), r"edges\[0\].*float32.*float64"),
    (lambda: softcut(edges=tuple(w.astype(np.float16) for w in W)), r"edges\[0\].*float16.*float64"),
    (lambda: softcut(diagonals=DIAGONALS[0]), r"diagonals is ndarray; it must be a tuple, one per direction"),
    (lambda: softcut(conductance=P.astype(np.float32)), r"conductance.*float32.*float64"),
    (lambda: softcut(x0=P.astype(np.float32)), r"x0.*float32.*float64"),
    (lambda: softcut(tol="small"), r"tol is 'small'; it must be a number"),
    (lambda: softcut(absolute=2), r"absolute is 2; it must be True or False"),
    (lambda: softcut(batch="yes"), r"batch is 'yes'; it must be True or False"),
    (lambda: backward(P.astype(np.float32)), r"grad_x.*float32.*float64"),
    (lambda: backward(wanted="edges"), r"wanted is 'edges'; it must be a list"),
]


@pytest.mark.parametrize("call, text", VALUE)
def test_values(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(segprior.InvalidValueError, match=text):
        call()


@pytest.mark.parametrize("call, text", TYPE)
def test_types(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(segprior.InvalidTypeError, match=text):
        call()


def test_16_bit_matrices_are_not_exported() -> None:
    edges = tuple(w.astype(np.float16) for w in W)
    with pytest.raises(
        segprior.NotSupportedError, match=r"edges: the matrix of 16-bit edges is not exported"
    ):
        segprior.softcut_csr(P.astype(np.float32), edges)


def test_mixed_16_bit_edges() -> None:
    edges = (W[0].astype(np.float16), W[1].astype(np.float32))
    with pytest.raises(segprior.InvalidTypeError, match=r"edges\[1\].*float32.*float16"):
        segprior.softcut(P.astype(np.float32), edges)
