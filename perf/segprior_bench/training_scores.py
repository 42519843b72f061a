"""How good a segmentation of the cells is."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage
from segprior import metrics

from .training_cells import CLASSES, CYTOPLASM, NUCLEUS


@dataclasses.dataclass(frozen=True)
class Scores:
    """Of a set of images.

    mean_iou: over the three classes, all images pooled. dice: mean over cytoplasm and nucleus and the images.
    boundary: mean distance in pixels between the outlines, true and found, of the whole cell and of the nucleus.
    pieces: connected components of cytoplasm and nucleus, per image.
    """

    mean_iou: float
    dice: float
    boundary: float
    pieces: float


def score(truth: np.ndarray, found: np.ndarray) -> Scores:
    """Label maps, uint8 [N, H, W]."""
    matrices = metrics.confusion_matrix(truth, found, classes=CLASSES)
    distances = [
        outline_distance(t >= least, f >= least) for least in (CYTOPLASM, NUCLEUS) for t, f in zip(truth, found)
    ]
    return Scores(
        mean_iou=float(metrics.scores(matrices.sum(0)).mean_iou),
        dice=float(metrics.scores(matrices).dice[:, CYTOPLASM:].mean()),
        boundary=float(np.mean(distances)),
        pieces=pieces(found),
    )


def pieces(labels: np.ndarray) -> float:
    """Components of cytoplasm and nucleus in an image of `labels` [N, H, W], on average."""
    return float(metrics.component_counts(labels, CLASSES)[:, CYTOPLASM:].sum(1).mean())


def outline_distance(truth: np.ndarray, found: np.ndarray) -> float:
    """Mean distance of each outline's pixels to the other outline, averaged over both directions.

    Where one of the two, bool [H, W], is empty: the image's larger side.
    """
    outlines = [shape & ~ndimage.binary_erosion(shape) for shape in (truth, found)]
    if not all(outline.any() for outline in outlines):
        return float(max(truth.shape))
    far = [ndimage.distance_transform_edt(~outline) for outline in outlines]
    return float((far[0][outlines[1]].mean() + far[1][outlines[0]].mean()) / 2)
