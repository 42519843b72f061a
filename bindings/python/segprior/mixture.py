"""Gaussian mixtures of pixel values: k-means, Mahalanobis distance, likelihood, and EM's M-step."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from .errors import InvalidValueError, SegpriorError

_SAMPLE = 50_000  # pixels that k-means looks at; more change the means by less than the pixel noise


@dataclasses.dataclass(frozen=True)
class Mixture:
    """I Gaussians in C channels.

    Attributes:
        weights: [I], sum 1. means: [I, C]. covariances: [I, C, C], positive definite.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def mahalanobis(self, pixels: np.ndarray) -> np.ndarray:
        """``(h - m_i)^T S_i^-1 (h - m_i)`` of pixels [J, C]; [I, J]."""
        found = np.empty((len(self.means), len(pixels)))
        for row, mean, covariance in zip(found, self.means, self.covariances):
            offset = pixels - mean
            row[:] = np.einsum("xc,xc->x", offset, np.linalg.solve(covariance, offset.T).T)
        return found

    def log_likelihood(self, pixels: np.ndarray) -> np.ndarray:
        """``ln(weight_i N(h; m_i, S_i))`` of pixels [J, C]; [I, J]."""
        _, log_det = np.linalg.slogdet(2 * np.pi * self.covariances)
        return np.asarray((np.log(self.weights) - 0.5 * log_det)[:, None] - 0.5 * self.mahalanobis(pixels))

    @classmethod
    def estimate(cls, pixels: np.ndarray, u: np.ndarray, floor: float) -> Mixture:
        """The mixture that fits pixels [J, C] best under responsibilities u [I, J].

        `floor` is added to every variance.
        """
        mass = np.maximum(u.sum(1), 1e-100)  # an empty class keeps a weight whose logarithm is finite
        means = u @ pixels / mass[:, None]
        covariances = np.empty((len(u), pixels.shape[1], pixels.shape[1]))
        for covariance, row, mean, total in zip(covariances, u, means, mass):
            offset = pixels - mean
            covariance[:] = (row[:, None] * offset).T @ offset / total + floor * np.eye(pixels.shape[1])
        return cls(mass / mass.sum(), means, covariances)


def kmeans(
    pixels: np.ndarray,
    classes: int,
    seed: int = 0,
    brightness: np.ndarray | None = None,
    floor: float = 1e-4,
) -> Mixture:
    """Clusters pixels [J, C] into a `Mixture`, ordered from dark to bright.

    `brightness`: weight of each channel in that order [C]; None: equal. `floor` is added to every variance:
    by default that of quantisation to 8 bits and a little more, for values in [0, 1].
    """
    try:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise SegpriorError(f"{error}; pip install 'segprior[cli]' brings what k-means needs") from error

    sample = pixels
    if len(pixels) > _SAMPLE:
        sample = pixels[np.random.default_rng(seed).choice(len(pixels), _SAMPLE, replace=False)]
    if len(np.unique(sample, axis=0)) < classes:
        raise InvalidValueError(f"the image has fewer distinct colours than the {classes} classes asked for")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(classes, n_init=4, random_state=seed).fit(sample)
    weight = np.ones(pixels.shape[1]) if brightness is None else brightness
    order = np.argsort(fitted.cluster_centers_ @ weight, kind="stable")
    means, members = fitted.cluster_centers_[order], [sample[fitted.labels_ == k] for k in order]
    offsets = [found - mean for found, mean in zip(members, means)]
    flat = floor * np.eye(pixels.shape[1])  # keeps flat clusters invertible
    covariances = np.stack([offset.T @ offset / len(offset) + flat for offset in offsets])
    return Mixture(np.array([len(found) for found in members]) / len(sample), means, covariances)
