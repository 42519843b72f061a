"""The losses as a JAX function: their calls and derivatives. Arguments: losses.py."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax

from .. import _ffi
from ..errors import NotSupportedError
from ._arguments import compiled, cotangent, note, noted, perturbed, underivable, values
from ._calls import run
from ._kernels import COTANGENTS, SAVED_PLACE, Axis, Kernel, Output, Place, saved_output, slot

_FIELDS = ("mask", "labelled", "lower", "upper")  # may have one row for all images
_OF_AN_IMAGE = ("scores", "labels", "target", "groups")
_DIFFERENTIABLE = ("scores", "class_weights", "lower", "upper")
_C_NAMES = {"lower": "size_lower", "upper": "size_upper", "groups": "size_groups"}
_AXES = {"total": Axis.NONE, "items": Axis.SECOND, "voxels": Axis.FIRST}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything about a call that is known when it is traced."""

    options: bytes  # segprior_loss_opts
    scores: tuple[tuple[int, ...], str]  # shape and dtype
    output: str  # "total", "items" or "voxels"
    value: tuple[tuple[int, ...], str]  # its shape and dtype
    saved_bytes: int
    pools_images: bool  # a sum over them, groups, or a batch that counts as one image

    def axis(self, name: str) -> Axis:
        if name in _OF_AN_IMAGE:
            return Axis.FIRST
        return Axis.FIRST_OR_SHARED if name in _FIELDS else Axis.NONE

    def kernel(
        self,
        call: str,
        arguments: Sequence[Place],
        results: Sequence[Output],
        foldable: bool,
        forward: Kernel | None = None,
    ) -> Kernel:
        shape = self.scores[0]
        return Kernel(
            call=f"loss_{call}",
            options=self.options,
            arguments=tuple(arguments),
            results=tuple(results),
            images=shape[0],
            foldable=foldable,
            empty=0 in shape,
            forward=forward,
        )


def _slot(struct: Any, name: str) -> int:
    return slot(struct, _C_NAMES.get(name, name))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _evaluate(plan: Plan, arrays: dict[str, Any]) -> Any:
    """The output that `plan` names."""
    return _forward((plan, False, not plan.pools_images), arrays)[0]


_Setting = tuple[Plan, bool, bool]  # the plan, whether to keep state for backward, whether to fold under vmap


def _forward_kernel(setting: _Setting, names: Sequence[str]) -> Kernel:
    plan, keep, foldable = setting
    arguments = [Place(_slot(_ffi.LossInputs, name), plan.axis(name)) for name in names]
    results = [Output(slot(_ffi.LossOutputs, plan.output), _AXES[plan.output], *plan.value)]
    if keep:
        results.append(saved_output(plan.saved_bytes))
    return plan.kernel("forward", arguments, results, foldable)


def _forward(setting: _Setting, arrays: dict[str, Any]) -> tuple[Any, ...]:
    """The value; the saved state and its tag, if kept."""
    names = sorted(arrays)
    return run(_forward_kernel(setting, names), [arrays[name] for name in names])


def _is_foldable(plan: Plan, arrays: dict[str, Any], wanted: tuple[str, ...]) -> bool:
    """As _softmax._is_foldable."""
    return not plan.pools_images and all(
        name == "scores" or (name in _FIELDS and arrays[name].shape[0] == plan.scores[0][0])
        for name in wanted
    )


def _evaluate_forward(plan: Plan, primals: dict[str, Any]) -> tuple[Any, Any]:
    wanted, arrays = perturbed(primals, _DIFFERENTIABLE), values(primals)
    if "class_weights" in wanted and plan.output == "voxels":
        raise NotSupportedError(
            "class_weights have no gradient with reduction='none', where the loss is one per voxel; "
            "take 'mean' or 'sum', or jax.lax.stop_gradient(class_weights)"
        )
    value, *saved = _forward_once((plan, True, _is_foldable(plan, arrays, wanted)), arrays)
    return value, (arrays, tuple(saved), note(wanted, arrays))


def _evaluate_backward(plan: Plan, residuals: Any, incoming: Any) -> tuple[dict[str, Any]]:
    arrays, saved, names = residuals
    wanted = noted(names, arrays)
    found: dict[str, Any] = dict.fromkeys(arrays)
    if wanted:
        grad = cotangent(incoming, plan.value)
        found.update(_gradients((plan, wanted), arrays, saved, grad))
    return (found,)


_evaluate.defvjp(_evaluate_forward, _evaluate_backward, symbolic_zeros=True)
evaluate = compiled(_evaluate)


def _backward(
    setting: tuple[Plan, tuple[str, ...]], arrays: dict[str, Any], saved: tuple[Any, ...], grad: Any
) -> dict[str, Any]:
    plan, wanted = setting
    names = sorted(arrays)

    def axis(name: str) -> Axis:  # with a gradient per image, its argument is given per image too
        return Axis.FIRST if name in wanted and name in _FIELDS else plan.axis(name)

    arguments = [Place(_slot(_ffi.LossInputs, name), axis(name)) for name in names]
    arguments.append(Place(slot(_ffi.LossCotangents, plan.output, group=COTANGENTS), _AXES[plan.output]))
    arguments.append(SAVED_PLACE)
    results = [
        Output(_slot(_ffi.LossGrads, name), axis(name), arrays[name].shape, str(arrays[name].dtype))
        for name in wanted
    ]
    foldable = _is_foldable(plan, arrays, wanted)
    forward = _forward_kernel((plan, True, foldable), names)
    kernel = plan.kernel("backward", arguments, results, foldable, forward)
    return dict(zip(wanted, run(kernel, [*(arrays[name] for name in names), grad, *saved])))


def _refuse() -> Exception:
    return NotSupportedError(
        "segprior.jax.losses have first derivatives only: their gradient has no derivative"
    )


_forward_once = underivable(_forward, _refuse)
_gradients = compiled(underivable(_backward, _refuse))
