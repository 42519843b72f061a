"""Scores of segmentations: exact counts on label maps, what follows from them, and connected components.

>>> import numpy as np
>>> from segprior import metrics
>>> truth = np.array([[[0, 0, 1, 1], [0, 0, 1, 255]]], np.uint8)
>>> found = np.array([[[0, 1, 1, 1], [0, 0, 1, 0]]], np.uint8)
>>> matrix = metrics.confusion_matrix(truth, found, classes=2)
>>> matrix[0].tolist(), metrics.scores(matrix).iou.tolist()
([[3, 1], [0, 3]], [[0.75, 0.75]])
>>> metrics.components(found).count.tolist()
[1]

Arguments that the functions have in common, for B images with 1 to 3 spatial axes S:

    labels, prediction, map: label maps [B, *S], C-contiguous; bool, uint8, int32 or int64. NumPy, or any array
        with ``__dlpack__`` (torch, CuPy, JAX on the CPU); read in place, never copied. Results are of the
        framework of the first, on its device. [B, 1, *S] is taken for [B, *S], as the losses take it: a
        volume of one slice has the counts and components of its slice.
    classes: I >= 1, at most 256 for a confusion matrix; a class is a value 0 .. I - 1.
    mask: voxels that count, bool or uint8 [*S], [1, *S], [B, *S] or [B, 1, *S]; 0: does not. None: all.
    threads: CPU threads; None: the OpenMP default. Results are exact and do not depend on it.
    stream: a cudaStream_t as an integer to work on; None: the current stream of the framework. It waits for that
        stream's work on the arguments; to make others wait for the results is the caller's part.

Counts are int64 (JAX without its 64-bit mode: int32, and float32 in the place of float64).

All raise InvalidTypeError (a TypeError) for what is not an array of the dtypes above, InvalidValueError (a
ValueError) for a value, shape, stride or device, the text naming the argument; DeviceError, OutOfMemoryError,
LibraryError.
"""

from __future__ import annotations

import ctypes as ct
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _ffi
from ._arrays import FIELD, INTEGERS, LABELS, MASK, View
from ._call import IGNORE_INDEX, Call, Work, ignored_label, integer, positive, without_channel
from .components import Components, component_counts, components
from .errors import InvalidValueError

__all__ = [
    "Components",
    "Scores",
    "boundary_length",
    "component_counts",
    "components",
    "confusion_matrix",
    "scores",
    "volumes",
]

_MOST_CLASSES = 256  # of a confusion matrix


def confusion_matrix(
    labels: Any,
    prediction: Any = None,
    *,
    scores: Any = None,
    classes: int | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    mask: Any = None,
    invalid: str = "raise",
    threads: int | None = None,
    stream: int | None = None,
) -> Any:
    """How many voxels of each class are predicted as each class. Arguments not named here: see the module.

    Args:
        labels: the truth. Negative labels and `ignore_index` mean: not known, not counted.
        prediction: a label map; or
        scores: [B, I, *S], float32, float64, float16 or bfloat16: the prediction is the class of the largest,
            the first of equals.
        classes: needed with `prediction`; `scores` tell it.
        ignore_index: 255 unless given, and none where 255 is a class. None: none but the negative ones.
        invalid: what to do if a label or prediction is out of range, or all scores of a voxel are NaN. "raise":
            an InvalidValueError that counts them; on CUDA this waits for the stream. "ignore": leave those
            voxels out.

    Returns:
        int64 [B, I, I]: rows are labels, columns predictions.
    """
    lib = _ffi.library()
    if (prediction is None) == (scores is None):
        raise InvalidValueError("prediction and scores: give one of them")
    if invalid not in ("raise", "ignore"):
        raise InvalidValueError(f"invalid is {invalid!r}; it must be 'raise' or 'ignore'")
    call = Call(labels, "labels", "B", LABELS, stream, threads)
    inputs = _ffi.ConfusionInputs(struct_size=ct.sizeof(_ffi.ConfusionInputs))
    if scores is None:
        if classes is None:
            raise InvalidValueError("classes is None; it is needed with prediction")
        size = integer("classes", classes, 1)
        other = call.view(prediction, "prediction", LABELS)
        axes = min(len(call.spatial), len(other.shape) - 1)
        inputs.prediction = ct.pointer(without_channel(other, axes).tensor)
    else:
        other = call.view(scores, "scores", FIELD)
        if len(other.shape) < 3:
            raise InvalidValueError(f"scores has shape {other.shape}; it must be [B, I, *S]")
        size, axes = other.shape[1], len(other.shape) - 2
        if classes is not None and integer("classes", classes, 1) != size:
            raise InvalidValueError(f"classes = {classes}, but scores have {size}")
        inputs.scores = ct.pointer(other.tensor)
    if not 1 <= size <= _MOST_CLASSES:
        raise InvalidValueError(f"classes = {size}; a confusion matrix has 1 .. {_MOST_CLASSES}")
    lead = without_channel(call.lead_given, axes)
    call.spatial = lead.shape[1:]
    inputs.labels = ct.pointer(lead.tensor)
    if mask is not None:
        inputs.mask = ct.pointer(call.field("mask", mask, MASK).tensor)
    context = call.context()
    with call.framework.on_stream(call.stream):
        matrix, matrix_view = call.made("matrix", (call.batch, size, size), _ffi.INT64)
        wrong, wrong_view = call.made("invalid", (call.batch,), _ffi.INT64)
        status = lib.confusion(
            *(context.handle, ct.byref(inputs), ignored_label(ignore_index, size)),
            *(ct.byref(matrix_view.tensor), ct.byref(wrong_view.tensor)),
        )
        lib.check(status)
        if invalid == "raise":
            _require_valid(call.framework.to_host(wrong), size)
    call.hold(call.arrays, call.stream)
    return call.framework.finish(matrix)


def _require_valid(counts: Any, classes: int) -> None:
    images = counts.nonzero()[0].tolist()
    if images:
        raise InvalidValueError(
            f"{counts.sum()} voxels have a label or prediction outside 0 .. {classes - 1}, or NaN for all scores, "
            f"in the images {images}; invalid='ignore' leaves them out"
        )


class Scores(NamedTuple):
    """What `scores` returns: float64, [N] or, per class, [N, I]; without N for a single matrix. With tp the
    diagonal, fn and fp the rest of its row and column; NaN where a fraction is 0 / 0."""

    accuracy: Any  #: [N]: sum tp / all
    iou: Any  #: [N, I]: tp / (tp + fp + fn)
    mean_iou: Any  #: [N]: over the classes whose IoU is not NaN
    dice: Any  #: [N, I]: 2 tp / (2 tp + fp + fn), the Dice score (DSC)
    mean_dice: Any  #: [N]: likewise
    precision: Any  #: [N, I]: tp / (tp + fp)
    recall: Any  #: [N, I]: tp / (tp + fn)


def scores(matrix: Any, *, threads: int | None = None, stream: int | None = None) -> Scores:
    """Accuracy, IoU, Dice score, precision and recall from confusion matrices.

    Args:
        matrix: int32 or int64 [N, I, I], or one matrix [I, I]. The scores of a data set are those of the sum of its
            matrices, ``scores(matrix.sum(0))``.
        threads, stream: see the module.
    """
    lib = _ffi.library()
    work = Work(matrix, "matrix", INTEGERS, stream, threads)
    shape = work.lead.shape
    if len(shape) not in (2, 3) or shape[-1] != shape[-2]:
        raise InvalidValueError(f"matrix has shape {shape}; it must be [N, I, I] or [I, I]")
    work.widen_lead(matrix)
    leading = shape[:-2]
    lead = work.lead if leading else work.lead.reshaped((1, *shape))
    outputs = _ffi.ConfusionScoresOutputs(struct_size=ct.sizeof(_ffi.ConfusionScoresOutputs))
    context, found = work.context(), {}
    with work.framework.on_stream(work.stream):
        for name in Scores._fields:
            per_class = () if name in ("accuracy", "mean_iou", "mean_dice") else shape[-1:]
            found[name], target = work.made(name, (*leading, *per_class), _ffi.FLOAT64)
            setattr(outputs, name, ct.pointer(target.reshaped((*lead.shape[:1], *per_class)).tensor))
        lib.check(lib.confusion_scores(context.handle, ct.byref(lead.tensor), ct.byref(outputs)))
    work.hold(work.arrays, work.stream)
    return Scores(**{name: work.framework.finish(array) for name, array in found.items()})


def volumes(
    labels: Any, classes: int, *, mask: Any = None, threads: int | None = None, stream: int | None = None
) -> Any:
    """The voxels of each class, int64 [B, I]. Arguments: see the module; values of no class count nowhere."""
    call = Call(labels, "labels", "B", LABELS, stream, threads)
    size = integer("classes", classes, 1)
    valid = None if mask is None else call.field("mask", mask, MASK)
    with call.framework.on_stream(call.stream):
        found, target = call.made("volumes", (call.batch, size), _ffi.INT64)
        _geometry(call, valid, target, None)
    call.hold(call.arrays, call.stream)
    return call.framework.finish(found)


def boundary_length(
    labels: Any,
    classes: int,
    spacing: float | Sequence[float] | np.ndarray = 1.0,
    *,
    mask: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> Any:
    """Length (area) of the boundary of each class, as the faces between voxels make it up.

    Counts the pairs of neighbours, both valid, of which exactly one is of the class, times the area of a voxel's
    face between them; the border of the image is no boundary. A staircase: lines askew come out too long.

    Args:
        labels, classes, mask, threads, stream: see the module; values of no class belong to none.
        spacing: > 0 and finite, a voxel's size along each axis: one number, or a sequence or NumPy array of
            one per spatial axis. A map [B, 1, H, W] has two of them, lengths; with three numbers it is a volume
            of one slice, and has areas.

    Returns:
        float64 [B, I]; in 1-D the number of ends.
    """
    call = Call(labels, "labels", "B", LABELS, stream, threads)
    size, axes = integer("classes", classes, 1), len(call.spatial)
    sides = _spacing(spacing, call)
    areas = [math.prod(sides[:d] + sides[d + 1 :]) for d in range(len(sides))][-axes:]
    valid = None if mask is None else call.field("mask", mask, MASK)
    with call.framework.on_stream(call.stream):
        faces, target = call.made("faces", (call.batch, size, axes), _ffi.INT64)
        _geometry(call, valid, None, target)
        found = call.framework.weighted_sum(faces, areas)
    call.hold(call.arrays, call.stream)
    return call.framework.finish(found)


def _spacing(spacing: Any, call: Call) -> list[float]:
    """One per spatial axis, or those with the axis of extent 1 that was left out before them."""
    axes, given = len(call.spatial), len(call.lead_given.shape) - 1
    if isinstance(spacing, np.ndarray):
        spacing = spacing.tolist()
    if not isinstance(spacing, (list, tuple)):
        return [positive("spacing", spacing)] * axes
    if len(spacing) != axes and not len(spacing) == given <= 3:
        raise InvalidValueError(f"spacing has {len(spacing)} values; labels have {axes} axes")
    return [positive(f"spacing[{d}]", side) for d, side in enumerate(spacing)]


def _geometry(call: Call, mask: View | None, counts: View | None, faces: View | None) -> None:
    lib, context = _ffi.library(), call.context()
    tensors = (call.lead, mask, counts, faces)
    lib.check(
        lib.label_geometry(
            context.handle, *(None if source is None else ct.byref(source.tensor) for source in tensors)
        )
    )
