"""The model: a small perceptron on each pixel's features, with its backward pass, and Adam."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SCALES = (1.0, 2.0, 4.0, 8.0)  # of the Gaussians, pixels


def features(images: np.ndarray) -> np.ndarray:
    """[N, H W, F] float32 of images [N, H, W]: grey value, smoothed ones, lengths of gradients."""
    found = [images]
    for scale in SCALES:
        sigma = (0, scale, scale)
        found.append(ndimage.gaussian_filter(images, sigma))
        found.append(scale * np.stack([ndimage.gaussian_gradient_magnitude(i, scale) for i in images]))
    return np.stack(found, -1).reshape(len(images), -1, len(found)).astype(np.float32)


class Scaling:
    """Shifts and scales features to mean 0 and deviation 1 over the training images."""

    def __init__(self, train: np.ndarray) -> None:
        flat = train.reshape(-1, train.shape[-1])
        self._mean, self._deviation = flat.mean(0), flat.std(0)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return (features - self._mean) / self._deviation


class Perceptron:
    """Logits of each pixel from its features; two hidden layers, ReLU."""

    def __init__(self, inputs: int, hidden: int, classes: int, rng: np.random.Generator) -> None:
        widths = [inputs, hidden, hidden, classes]
        # He et al.'s scale for ReLU; the last layer starts small, so that every class starts equally likely.
        scales = [np.sqrt(2 / n) for n in widths[:-1]]
        scales[-1] *= 0.1
        self.parameters: list[np.ndarray] = []
        for rows, columns, scale in zip(widths, widths[1:], scales):
            weights = scale * rng.standard_normal((rows, columns))
            self.parameters += [weights.astype(np.float32), np.zeros(columns, np.float32)]

    def forward(self, features: np.ndarray, spatial: tuple[int, ...]) -> np.ndarray:
        """Logits [B, classes, *spatial] of features [B, J, F]."""
        self._activations = [features.reshape(-1, features.shape[-1])]
        *layers, last = zip(self.parameters[::2], self.parameters[1::2])
        for weights, bias in layers:
            self._activations.append(np.maximum(self._activations[-1] @ weights + bias, 0))
        logits = self._activations[-1] @ last[0] + last[1]
        return np.ascontiguousarray(logits.reshape(len(features), -1, logits.shape[-1]).swapaxes(1, 2)).reshape(
            len(features), -1, *spatial
        )

    def backward(self, grad_logits: np.ndarray) -> list[np.ndarray]:
        """Gradients of the parameters from those of the last forward call's logits."""
        batch, classes = grad_logits.shape[:2]
        grad = grad_logits.reshape(batch, classes, -1).swapaxes(1, 2).reshape(-1, classes)
        ones = np.ones(len(grad), np.float32)  # the product with it is a quicker sum
        found: list[np.ndarray] = []
        for layer in range(len(self._activations) - 1, -1, -1):
            x = self._activations[layer]
            found = [x.T @ grad, ones @ grad, *found]
            if layer > 0:
                grad = (grad @ self.parameters[2 * layer].T) * (x > 0)
        return found


class Adam:
    """Kingma and Ba, arXiv 1412.6980, with their defaults but for the rate."""

    def __init__(self, parameters: list[np.ndarray], rate: float) -> None:
        self._parameters, self._rate, self._steps = parameters, rate, 0
        self._first = [np.zeros_like(p) for p in parameters]
        self._second = [np.zeros_like(p) for p in parameters]

    def step(self, grads: list[np.ndarray]) -> None:
        self._steps += 1
        for p, g, m, v in zip(self._parameters, grads, self._first, self._second):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            corrected = np.sqrt(v / (1 - 0.999**self._steps)) + 1e-8
            p -= self._rate * (m / (1 - 0.9**self._steps)) / corrected
