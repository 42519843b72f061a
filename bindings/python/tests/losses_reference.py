"""The losses in NumPy, from the formulas at the head of include/segprior/losses.h, dense and in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

TERMS = ("size", "cross_entropy", "focal", "dice", "focal_dice")


def probabilities(scores: Any, activation: str | None) -> Any:
    if activation is None:
        return scores
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-scores))
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def one_hot(labels: Any, classes: int, background: bool = False) -> Any:
    """`background`: label 0 has no channel."""
    return np.stack([labels == i + background for i in range(classes)], 1).astype(np.float64)


def sharpen(s: Any, threshold: float, gamma: float) -> Any:
    z = np.clip(s - threshold + 0.5, 0, 1)
    return z**gamma / (z**gamma + (1 - z) ** gamma)


class Reference:
    """Every term of one problem; arguments as `segprior.losses.combined` has them, arrays of whole batches."""

    def __init__(
        self,
        scores: Any,
        labels: Any = None,
        *,
        target: Any = None,
        lower: Any = 0.0,
        upper: Any = np.inf,
        groups: Any = None,
        normalise: str | None = None,
        squared: bool = True,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        focal_gamma: float = 2.0,
        focal_dice_threshold: float = 0.5,
        focal_dice_gamma: float = 2.0,
        activation: str | None = "softmax",
        ignore_index: int | None = 255,
        background: bool = False,
        mask: Any = True,
        labelled: Any = True,
        class_weights: Any = 1.0,
        log_offset: float = 1e-10,
    ) -> None:
        count, classes, *spatial = scores.shape
        self.axes = tuple(range(2, scores.ndim))
        s = probabilities(
            np.where(np.broadcast_to(mask, (count, *spatial))[:, None], scores, 0.5), activation
        )
        m = np.broadcast_to(mask, (count, *spatial)).astype(float)
        known = m * np.broadcast_to(labelled, m.shape)
        if labels is not None:
            known = known * (labels >= 0) * (labels != ignore_index)
            target = one_hot(labels, classes, background)
        t, w = (np.zeros_like(s) if target is None else target), np.broadcast_to(class_weights, classes)
        self.known, self.weights = known[:, None], w
        # Of the rows of Dice losses.
        self.has_labels = known.reshape(count, known.size // max(count, 1)).any(1)
        if batch:
            self.has_labels = np.arange(count) < self.has_labels.any()
        self.binary, self.target, self.batch = activation == "sigmoid", t, batch

        offset = log_offset if activation is None else 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            log, log_not = np.log(s + offset), np.log(1 - s)
        wide = w.reshape(1, classes, *(1,) * len(spatial))
        entropy, focal = -t * log, -t * (1 - s) ** focal_gamma * log
        if self.binary:
            entropy, focal = entropy - (1 - t) * log_not, focal - (1 - t) * s**focal_gamma * log_not
        self.voxels = {
            "cross_entropy": (self.known * wide * entropy).sum(1),
            "focal": (self.known * wide * focal).sum(1),
        }
        sharp = sharpen(s, focal_dice_threshold, focal_dice_gamma)
        dice = [self.dice(p, squared, smooth_nr, smooth_dr) for p in (s, sharp)]
        self.has_bound = (np.broadcast_to(lower, (count, classes)) > 0) | (
            np.broadcast_to(upper, (count, classes)) < np.inf
        )
        self.items = {
            "size": self.size(s * m[:, None], lower, upper, groups, normalise),
            "cross_entropy": (self.known * wide * entropy).sum(self.axes),
            "focal": (self.known * wide * focal).sum(self.axes),
            "dice": dice[0],
            "focal_dice": dice[1],
        }

    def size(self, s: Any, lower: Any, upper: Any, groups: Any, normalise: str | None) -> Any:
        volume, shape = s.sum(self.axes), s.shape[:2]
        self.rows = np.ones(len(volume), bool)
        if groups is not None:
            volume = np.stack([volume[np.array(groups) == g].sum(0) for g in range(len(volume))])
            self.rows = np.isin(np.arange(len(volume)), groups)
        below = np.minimum(volume - np.broadcast_to(lower, shape), 0)
        above = np.maximum(volume - np.broadcast_to(upper, shape), 0)
        n = 1 / np.prod(s.shape[2:]) if normalise == "voxels" else 1
        return self.weights * n * (below**2 + above**2) * self.rows[:, None]

    def dice(self, p: Any, squared: bool, smooth_nr: float, smooth_dr: float) -> Any:
        power = 2 if squared else 1
        sums = [(self.known * a).sum(self.axes) for a in (p * self.target, p**power, self.target**power)]
        if self.batch:
            sums = [a.sum(0, keepdims=True) for a in sums]
        top, bottom = 2 * sums[0] + smooth_nr, sums[1] + sums[2] + smooth_dr
        loss = 1 - np.where(bottom == 0, 1, top / np.where(bottom == 0, 1, bottom))
        found = np.zeros(p.shape[:2])
        found[: len(loss)] = self.weights * loss
        return found * self.has_labels[:, None]

    def term(self, name: str, reduction: str = "mean") -> Any:
        total = self.items[name].sum()
        if reduction == "sum":
            return total
        used = self.weights > 0
        if name in ("cross_entropy", "focal"):
            each = np.broadcast_to(
                self.known * used[(None, slice(None), *(None,) * len(self.axes))], self.target.shape
            )
            wide = self.weights.reshape(1, -1, *(1,) * len(self.axes))
            divisor = each.sum() if self.binary else (self.known * wide * self.target).sum()
        elif name == "size":
            divisor = (self.has_bound & used & self.rows[:, None]).sum()
        else:
            divisor = self.has_labels.sum() * used.sum()
        return total / divisor if divisor else 0.0

    def total(self, weights: dict[str, float], reduction: str = "mean") -> Any:
        return sum(weight * self.term(name, reduction) for name, weight in weights.items() if weight)


def difference_quotient(function: Any, array: Any, step: float = 1e-6) -> Any:
    """Central differences of a scalar function of a float64 array."""
    found = np.empty_like(array)
    for index in np.ndindex(array.shape):
        moved = [array.copy(), array.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        found[index] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return found
