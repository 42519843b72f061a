"""Arguments of one call of the losses, checked and held as the C library's structs."""

from __future__ import annotations

import ctypes as ct
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import _ffi
from ._arrays import (
    FIELD,
    INTEGERS,
    LABELS,
    MASK,
    SOFT_LABELS,
    View,
    pad_rows,
    put_row,
    to_integers,
    view,
)
from ._call import Call, choice, flag, ignored_label, number, without_channel
from .errors import InvalidTypeError, InvalidValueError
from .report import Info

TERMS = {
    "size": _ffi.LOSS_SIZE,
    "cross_entropy": _ffi.LOSS_CROSS_ENTROPY,
    "focal": _ffi.LOSS_FOCAL,
    "dice": _ffi.LOSS_DICE,
    "focal_dice": _ffi.LOSS_FOCAL_DICE,
}
_PER_VOXEL = ("cross_entropy", "focal")
ACTIVATIONS = {
    "softmax": _ffi.ACTIVATION_SOFTMAX,
    "sigmoid": _ffi.ACTIVATION_SIGMOID,
    None: _ffi.ACTIVATION_NONE,
}
# What the library does where the caller reduces: sums of nothing but what is asked for.
REDUCTIONS = {"none": _ffi.REDUCTION_SUM, "sum": _ffi.REDUCTION_SUM, "mean": _ffi.REDUCTION_MEAN}
NORMALISE = {None: 0, "voxels": 1}
_C_NAMES = {"lower": "size_lower", "upper": "size_upper", "groups": "size_groups"}


class LossCall(Call):
    """Options and inputs of one forward call; kept for its backward pass."""

    def __init__(
        self,
        scores: Any,
        weights: dict[str, Any],
        activation: Any,
        reduction: Any,
        stream: int | None,
        threads: int | None,
    ) -> None:
        lib = _ffi.library()
        super().__init__(scores, "scores", "B, I", FIELD, stream, threads)
        # The dtype of everything real but the scores, a soft target and the scores' gradient.
        self.real = _ffi.FLOAT64 if self.lead.dtype == _ffi.FLOAT64 else _ffi.FLOAT32
        self.opts = _ffi.LossOpts()
        lib.check(lib.loss_opts_init(ct.byref(self.opts), ct.sizeof(self.opts)))
        self.inputs = _ffi.LossInputs(struct_size=ct.sizeof(_ffi.LossInputs))
        # Of arguments with a gradient, as the caller has them.
        self.given_shapes: dict[str, tuple[int, ...]] = {}
        self.views: dict[str, View] = {}
        self.add("scores", self.lead)
        for term, k in TERMS.items():
            weight = number(term, weights.get(term, 0.0))
            if not math.isfinite(weight):
                raise InvalidValueError(f"{term} = {weight}; it must be finite")
            self.opts.weights[k] = weight
        self.terms = [term for term, k in TERMS.items() if self.opts.weights[k] != 0]
        self.opts.activation = choice("activation", activation, ACTIVATIONS)
        self.opts.reduction = choice("reduction", reduction, REDUCTIONS)
        self.is_reduced = reduction != "none"
        self.is_per_voxel = not self.is_reduced and self.terms[0] in _PER_VOXEL

    def add(self, name: str, source: View) -> None:
        """Sets an input of the library."""
        self.views[name] = source
        setattr(self.inputs, _C_NAMES.get(name, name), ct.pointer(source.tensor))

    def add_labels(self, labels: Any, target: Any, ignore_index: Any, background: Any, labelled: Any) -> None:
        if labels is not None and target is not None:
            raise InvalidValueError("labels and target are both given; give one of them")
        if labels is None and target is None and any(term != "size" for term in self.terms):
            raise InvalidValueError("labels and target are both None; give one of them")
        if labels is not None:
            source = self.view(labels, "labels", LABELS)
            self.add("labels", without_channel(source, len(self.spatial)))
        if target is not None:
            self.add("target", self.view(target, "target", SOFT_LABELS))
        self.opts.background = flag("background", background)
        if self.opts.background and self.opts.activation != _ffi.ACTIVATION_SIGMOID:
            raise InvalidValueError("background is True; it is for activation='sigmoid', independent classes")
        self.opts.ignore_label = ignored_label(ignore_index, self.classes + self.opts.background)
        if labelled is not None:
            self.add("labelled", self.field("labelled", labelled, MASK))

    def add_mask(self, mask: Any) -> None:
        if mask is not None:
            self.add("mask", self.field("mask", mask, MASK))

    def add_class_weights(self, weights: Any, rows: bool) -> None:
        """`rows`: one per term is allowed as well."""
        if weights is None:
            return
        array = self.numbers("class_weights", weights, "[I]", self.real)
        source = self.view(array, "class_weights")
        if len(source.shape) != 1 and not rows:
            raise InvalidValueError(f"class_weights has shape {source.shape}; it must be [{self.classes}]")
        self.given_shapes["class_weights"] = source.shape
        self.add("class_weights", source)

    def add_bounds(self, lower: Any, upper: Any, groups: Any, normalise: Any) -> None:
        self.opts.size_per_voxel = choice("normalise", normalise, NORMALISE)
        if "size" in self.terms and lower is None and upper is None:
            raise InvalidValueError("lower and upper are both None; the size penalty needs one of them")
        for name, value in (("lower", lower), ("upper", upper)):
            if value is not None:
                self._add_bound(name, value, groups is not None)
        if groups is not None:
            given = self.numbers("groups", groups, "[B]", _ffi.INT32)
            source = to_integers(given, self.view(given, "groups", INTEGERS), _ffi.INT32, self.stream)
            self.arrays.append(source.keep[0])
            self.add("groups", source)

    def _add_bound(self, name: str, value: Any, grouped: bool) -> None:
        array = self.numbers(name, value, "[I] or [B, I]", self.real)
        source = self.view(array, name)
        self.given_shapes[name] = source.shape
        source = self.rows(name, source, grouped)
        if 1 < source.shape[0] < self.batch:
            # Of groups without images, or NaN for a wrong group: its images then fail.
            source = pad_rows(array, source, self.batch, self.stream)
            self.arrays.append(source.keep[0])
        self.add(name, source)

    @property
    def differentiable(self) -> list[str]:
        """Names of the given arguments that have gradients."""
        return ["scores", *self.given_shapes]

    def allocate_outputs(self) -> tuple[_ffi.LossOutputs, dict[str, Any]]:
        """An outputs struct with what the result shows, and its arrays."""
        outputs, made = _ffi.LossOutputs(struct_size=ct.sizeof(_ffi.LossOutputs)), {}
        shapes = {"terms": (len(TERMS),), "items": (len(TERMS), self.batch, self.classes)}
        if self.is_reduced:
            shapes["total"] = ()
        elif self.is_per_voxel:
            shapes["voxels"] = (self.batch, *self.spatial)
        for name, shape in shapes.items():
            made[name], target = self.made(name, shape, self.real)
            setattr(outputs, name, ct.pointer(target.reshaped(shape or (1,)).tensor))
        return outputs, made

    def allocate(self, names: Iterable[str]) -> tuple[_ffi.LossGrads, dict[str, Any]]:
        """A gradients struct with these gradients, and its arrays."""
        grads = _ffi.LossGrads(struct_size=ct.sizeof(_ffi.LossGrads))
        made = {}
        for name in names:
            like = self.views[name]
            made[name], target = self.made(name, like.shape, like.dtype)
            setattr(grads, _C_NAMES.get(name, name), ct.pointer(target.tensor))
        return grads, made

    def as_given(self, name: str, gradient: Any) -> Any:
        """A gradient with the shape that its argument had: bounds were [I], or had fewer rows than images."""
        given = self.given_shapes.get(name)
        if given is None or name == "class_weights":
            return gradient
        return gradient[0] if len(given) == 1 else gradient[: given[0]]

    def read_info(self, address: int, stream: int) -> Info:
        return Info(self.read_infos(address, self.batch, stream))

    def incoming(self, grad: Any, source: View | None) -> tuple[_ffi.LossCotangents, list[tuple[Any, View]]]:
        """The caller's gradient of the value as the library reads it, and memory to be kept until then.

        `source`: its view; None: it is a number. To be called on the stream that reads it.
        """
        found = _ffi.LossCotangents(struct_size=ct.sizeof(_ffi.LossCotangents))
        if source is None:
            if not self.is_reduced:
                raise InvalidTypeError(f"grad is {type(grad).__name__}; it must be an array of value's shape")
            one = np.array([1.0 if grad is None else number("grad", grad)])
            grad = self.framework.numbers(one, self.real)
            source = view(grad, "grad")
        made = [(grad, source)]
        if self.is_per_voxel:
            found.voxels = ct.pointer(source.tensor)
        elif self.is_reduced:
            if math.prod(source.shape) != 1:
                raise InvalidValueError(f"grad has shape {source.shape}; it must have one element")
            found.total = ct.pointer(source.reshaped((1,)).tensor)
        else:
            self._require_items(source)
            made.append(self.made("grad", (len(TERMS), self.batch, self.classes), self.real))
            array, rows = made[-1]
            put_row(self.framework, array, rows, TERMS[self.terms[0]], grad, source)
            found.items = ct.pointer(rows.tensor)
        return found, made

    def _require_items(self, source: View) -> None:
        """The copy, which is all that the library sees, needs an array like the value."""
        shape, names = (self.batch, self.classes), _ffi.DTYPE_NAMES
        if source.shape != shape:
            raise InvalidValueError(f"grad has shape {source.shape}; it must be {shape}")
        if source.device != self.lead.device:
            raise InvalidValueError(f"grad lives on {source.device}; it must be on {self.lead.device}")
        if source.dtype != self.real:
            raise InvalidTypeError(f"grad has dtype {names[source.dtype]}; it must be {names[self.real]}")
