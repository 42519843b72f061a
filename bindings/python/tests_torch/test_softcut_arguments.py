"""Wrong arguments of `segprior.torch.softcut`: each error names the argument, its value and the rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from segprior.errors import InvalidTypeError, InvalidValueError
from segprior.torch import softcut

P = torch.zeros(2, 3, 6, 7, dtype=torch.float64)
W = (torch.ones(2, 3, 5, 7, dtype=torch.float64), torch.ones(2, 3, 6, 6, dtype=torch.float64))
DIAGONALS = (torch.ones(2, 3, 5, 6, dtype=torch.float64),) * 2
INFINITE, NAN = float("inf"), float("nan")
LINE = {"scores": torch.zeros(1, 1, 4), "edges": (torch.ones(1, 1, 3),)}

VALUE: list[tuple[dict[str, Any], str]] = [
    ({"scores": torch.zeros(3, 4)}, r"scores has shape \[3, 4\]; it must be \[B, K, \*S\]"),
    ({"edges": W[:1]}, r"edges has 1 members; it must have 2, one tensor per spatial axis"),
    ({"edges": ()}, r"edges has 0 members"),
    ({"edges": (W[1], W[0])}, r"edges\[0\].*\[2, 3, 6, 6\].*\[2, 3, 5, 7\]"),
    ({"edges": (W[0], W[1][:, :1])}, r"edges\[1\].*\[2, 1, 6, 6\].*\[2, 3, 6, 6\]"),
    ({"diagonals": DIAGONALS[:1]}, r"diagonals has 1 members; it must have 2, one per direction"),
    ({"diagonals": (W[0], W[0])}, r"diagonals\[0\].*\[2, 3, 5, 7\].*\[2, 3, 5, 6\]"),
    ({**LINE, "diagonals": DIAGONALS}, r"diagonals\[0\] is given, which needs 2 spatial axes"),
    ({"conductance": P[:, :1]}, r"conductance.*\[2, 1, 6, 7\].*\[2, 3, 6, 7\]"),
    ({"x0": P[:, :, :, 1:]}, r"x0.*\[2, 3, 6, 6\].*\[2, 3, 6, 7\]"),
    ({"solver": "lu"}, r"solver is 'lu'; it must be 'auto', 'cg', 'jacobi', 'multigrid', 'cheb"),
    ({"solver": 1}, r"solver is 1; it must be 'auto'"),
    ({"solver": ["cg"]}, r"solver is \['cg'\]; it must be 'auto'"),
    ({"norm": "max"}, r"norm is 'max'; it must be 'l2', 'l1'"),
    ({"path": "fast"}, r"path is 'fast'; it must be 'auto', .* 'cluster', 'persistent'"),
    ({"tol": 0}, r"tol = 0.0; it must be > 0"),
    ({"tol": NAN}, r"tol = nan; it must be > 0"),
    ({"tol": INFINITE}, r"^tol = inf; it must be > 0 and finite$"),
    ({"backward_tol": -1}, r"backward_tol = -1.0; it must be > 0"),
    ({"max_iters": 0}, r"max_iters = 0; it must be an integer >= 1"),
    ({"max_iters": 2.5}, r"max_iters = 2.5; it must be an integer"),
    ({"backward_max_iters": 0}, r"backward_max_iters = 0; it must be an integer >= 1"),
]

TYPE: list[tuple[dict[str, Any], str]] = [
    ({"scores": P.numpy()}, r"scores is ndarray; it must be a torch.Tensor"),
    ({"scores": P.long()}, r"scores has dtype torch.int64; it must be float32, float64, float16 or bf"),
    ({"scores": P.to(torch.complex64)}, r"scores has dtype torch.complex64; it must be float32, float64"),
    ({"edges": W[0]}, r"edges is Tensor; it must be a tuple, one tensor per spatial axis"),
    ({"edges": (W[0], None)}, r"edges\[1\] is NoneType; it must be a torch.Tensor"),
    (
        {"edges": (W[0], W[1].int())},
        r"edges\[1\] has dtype torch.int32; it must be float32, float64, float16 or",
    ),
    ({"edges": tuple(w.float() for w in W)}, r"edges\[0\].*float32.*float64"),
    ({"edges": tuple(w.half() for w in W)}, r"edges\[0\].*float16.*float64"),
    ({"diagonals": DIAGONALS[0]}, r"diagonals is Tensor; it must be a tuple, one per direction"),
    ({"conductance": np.ones(3)}, r"conductance is ndarray; it must be a torch.Tensor"),
    ({"conductance": P.float()}, r"conductance.*float32.*float64"),
    ({"x0": P.float()}, r"x0.*float32.*float64"),
    ({"tol": "small"}, r"tol is 'small'; it must be a number"),
    ({"tol": [1e-3, 1e-4]}, r"tol is \[0.001, 0.0001\]; it must be a number"),
    ({"absolute": 2}, r"absolute is 2; it must be True or False"),
    ({"batch": "yes"}, r"batch is 'yes'; it must be True or False"),
]


@pytest.mark.parametrize("change, text", VALUE)
def test_wrong_value(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidValueError, match=text):
        softcut(**{"scores": P, "edges": W, **change})


@pytest.mark.parametrize("change, text", TYPE)
def test_wrong_type(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidTypeError, match=text):
        softcut(**{"scores": P, "edges": W, **change})


def test_a_gradient_of_wrong_shape() -> None:
    x = softcut(P.clone().requires_grad_(), W)
    with pytest.raises(RuntimeError, match=r"\[2, 3, 6, 7\]"):
        x.backward(P[:1])


def test_an_error_leaves_the_next_call_unharmed() -> None:
    with pytest.raises(InvalidValueError):
        softcut(P, (W[1], W[0]))
    assert softcut(P, W).shape == P.shape
