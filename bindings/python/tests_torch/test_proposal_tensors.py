"""`segprior.torch.lagrangian_proposal` is that of `segprior.losses`, as a constant."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import pytest
import torch
from torch import Tensor

from segprior import Status, losses
from segprior.errors import InvalidTypeError, InvalidValueError
from segprior.torch import lagrangian_proposal, lagrangian_proposal_with_report


def make(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, and bounds of which about half are broken by the plain softmax."""
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(shape, generator=random, dtype=torch.float64)
    sizes = logits.softmax(1).flatten(2).sum(2)
    other = torch.rand(shape[:2], generator=random, dtype=torch.float64)
    goal = 0.7 * sizes + 0.3 * other / other.sum(1, keepdim=True) * logits[0, 0].numel()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return logits.to(dtype), (0.95 * goal).to(wide), (1.05 * goal).to(wide)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"method": "gradient", "step": 1e-3, "max_iters": 40, "tol": 1e-3}])
@pytest.mark.parametrize("shape", [(2, 3, 31), (2, 4, 9, 11), (1, 2, 5, 3, 7)])
def test_the_same_bits(shape: tuple[int, ...], options: dict[str, Any], dtype: torch.dtype) -> None:
    logits, lower, upper = make(shape, dtype)
    valid = torch.rand(shape[2:], generator=torch.Generator().manual_seed(1)) > 0.1
    for mask in (None, valid):
        expected = losses.lagrangian_proposal(logits, lower, upper, mask=mask, **options)
        found = lagrangian_proposal_with_report(logits, lower, upper, mask=mask, **options)
        assert torch.equal(found.proposal, expected.proposal) and found.proposal.dtype == dtype
        assert torch.equal(found.dual, expected.dual) and torch.equal(found.volume, expected.volume)
        assert found.report.status.tolist() == list(map(int, expected.info.status))
        assert found.report.iterations.tolist() == expected.info.iterations.tolist()
        assert found.report.residual.tolist() == expected.info.residual.tolist()
        q = lagrangian_proposal(logits, lower, upper, mask=mask, **options)
        assert torch.equal(q, found.proposal)


def test_bounds_of_other_kinds() -> None:
    logits, _, _ = make((2, 3, 9, 11), torch.float32)
    numbers = {"lower": [40, 0, 10], "upper": [70, 60, float("inf")]}
    expected = lagrangian_proposal(
        logits, **{k: torch.tensor(v, dtype=torch.float32) for k, v in numbers.items()}
    )
    assert torch.equal(lagrangian_proposal(logits, **numbers), expected)
    double = {k: torch.tensor([v, v], dtype=torch.float64) for k, v in numbers.items()}
    assert torch.equal(lagrangian_proposal(logits, **double), expected)
    arrays = {k: np.array(v, np.float32) for k, v in numbers.items()}
    assert torch.equal(lagrangian_proposal(logits, **arrays), expected)
    volumes = expected.sum((2, 3))
    assert (volumes[:, 0] >= 39.9).all() and (volumes[:, 1] <= 60.1).all()


def test_layout_of_the_logits() -> None:
    logits, lower, upper = make((2, 3, 9, 11))
    expected = lagrangian_proposal(logits, lower, upper)
    last = logits.contiguous(memory_format=torch.channels_last)
    found = lagrangian_proposal(last, lower.t().contiguous().t(), upper)
    assert torch.equal(found, expected) and found.is_contiguous()


def test_it_is_a_constant() -> None:
    logits, lower, upper = (t.requires_grad_() for t in make((1, 3, 6, 7)))
    found = lagrangian_proposal_with_report(logits, lower, upper)
    assert not any(t.requires_grad for t in (found.proposal, found.dual, found.volume))
    assert not torch.ops.segprior.proposal(logits, lower, upper, None, "")[0].requires_grad

    def divergence(z: Tensor, q: Optional[Tensor] = None) -> Tensor:
        target = lagrangian_proposal(z, lower, upper) if q is None else q
        return (z.log_softmax(1) * target).sum()

    expected = torch.func.grad(divergence)(logits, found.proposal)
    assert torch.allclose(torch.func.grad(divergence)(logits), expected)


def test_autocast_takes_16_bits_as_float32() -> None:
    logits, lower, upper = make((1, 3, 6, 7), torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = lagrangian_proposal(logits, lower, upper)
    assert torch.equal(found, lagrangian_proposal(logits.float(), lower, upper))


def test_infeasible_bounds_show_in_the_report() -> None:
    logits, _, _ = make((2, 3, 6, 7))
    report = lagrangian_proposal_with_report(logits, upper=[1.0, 2.0, 3.0]).report
    assert report.status.tolist() == [int(Status.INFEASIBLE_VOLUME)] * 2 and (report.residual > 1).all()


def test_empty_batch() -> None:
    found = lagrangian_proposal_with_report(torch.zeros(0, 3, 6, 7), lower=[1.0, 1.0, 1.0])
    assert found.proposal.shape == (0, 3, 6, 7) and found.dual.shape == (0, 3)
    assert found.report.status.shape == (0,)


@pytest.mark.parametrize("masked", [False, True])
def test_the_operator(masked: bool) -> None:
    logits, lower, upper = make((2, 3, 6, 7), torch.float32)
    mask = (torch.rand(2, 6, 7) > 0.2) if masked else None
    torch.library.opcheck(torch.ops.segprior.proposal.default, (logits, lower, upper, mask, "tolerance=1e-4"))
    compiled = torch.compile(lagrangian_proposal, fullgraph=True, backend="aot_eager")
    assert torch.equal(
        compiled(logits, lower, upper, mask=mask), lagrangian_proposal(logits, lower, upper, mask=mask)
    )
    stacked = torch.stack([logits, logits + 1])
    found = torch.vmap(lambda z: lagrangian_proposal(z, lower, upper, mask=mask))(stacked)
    assert torch.equal(found[1], lagrangian_proposal(stacked[1], lower, upper, mask=mask))


@pytest.mark.parametrize(
    "change, text",
    [
        ({"logits": torch.zeros(3, 4)}, r"logits has shape \[3, 4\]; it must be \[B, I, \*S\]"),
        (
            {"lower": [1.0, 2.0]},
            r"lower has shape \[.*2\]; it must be \[I\] or \[B, I\], here \[3\] or \[2, 3\]",
        ),
        ({"upper": torch.ones(3, 3)}, r"upper has shape \[3, 3\]"),
        ({"mask": torch.ones(2, 5)}, r"mask has shape \[2, 5\]"),
        ({"method": "fast"}, r"method is 'fast'; it must be 'exact', 'gradient'"),
        ({"max_iters": -1}, r"max_iters = -1"),
        ({"step": 0.0}, r"step = 0.0; it must be > 0"),
        ({"tol": -1.0}, r"tol = -1.0; it must be >= 0"),
    ],
)
def test_wrong_value(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidValueError, match=text):
        lagrangian_proposal(**{"logits": torch.zeros(2, 3, 6, 7), **change})


@pytest.mark.parametrize(
    "change, text",
    [
        ({"logits": np.zeros((2, 3, 6, 7))}, r"logits is ndarray; it must be a torch.Tensor"),
        ({"logits": torch.zeros(2, 3, 6, 7, dtype=torch.int32)}, r"logits has dtype torch.int32; it must be"),
        ({"lower": "small"}, r"lower is 'small'; it must be a tensor or numbers"),
        ({"mask": torch.ones(6, 7)}, r"mask.*float32"),
        ({"step": "big"}, r"step is 'big'; it must be a number"),
    ],
)
def test_wrong_type(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidTypeError, match=text):
        lagrangian_proposal(**{"logits": torch.zeros(2, 3, 6, 7), **change})
