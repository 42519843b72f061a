"""What the modules of the losses share: activation, reduction, weights of the classes, and targets."""

from __future__ import annotations

from typing import Any, Optional, Union

import torch
from torch import Tensor, nn

from .._call import IGNORE_INDEX, choice, flag
from ..errors import InvalidTypeError, InvalidValueError
from ._loss_call import Numbers
from ._tensors import parameter_dtype, require_tensor

Weight = Union[float, Numbers, None]
_REDUCTIONS = {"mean": 0, "sum": 1, "none": 2}


class Loss(nn.Module):
    """Activation, reduction and class weights; `arguments`: others of the function that computes the loss."""

    def __init__(
        self,
        include_background: bool,
        sigmoid: bool,
        softmax: bool,
        reduction: str,
        weight: Weight,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self.include_background = flag("include_background", include_background)
        if flag("sigmoid", sigmoid) and flag("softmax", softmax):
            raise InvalidValueError("sigmoid and softmax are both True; give one of them")
        self.activation = "sigmoid" if sigmoid else "softmax" if softmax else None
        choice("reduction", reduction, _REDUCTIONS)
        self.reduction = reduction
        self.arguments = arguments
        self.register_buffer("class_weight", None if weight is None else _weight(weight))
        self.class_weight: Optional[Tensor]

    def extra_repr(self) -> str:
        shown = {"include_background": self.include_background, "activation": self.activation}
        shown |= {"reduction": self.reduction, **self.arguments}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())

    def channels(self, input: Tensor) -> int:
        """I. One channel and what makes no sense of it is an error."""
        if require_tensor("input", input).dim() < 3:
            raise InvalidValueError(f"input has shape {list(input.shape)}; it must be [B, N, *S]")
        count: int = input.shape[1]
        if count == 1 and self.activation == "softmax":
            raise InvalidValueError("input has one channel, whose softmax is 1; give sigmoid=True")
        if count == 1 and not self.include_background:
            raise InvalidValueError("input has one channel; include_background=False would leave none")
        return count

    def weights(self, input: Tensor) -> Optional[Tensor]:
        """[I], with 0 for a background that does not count."""
        channels = self.channels(input)
        if self.include_background:
            return self.weights_of(channels, input)
        rest = self.weights_of(channels - 1, input)
        if rest is None:
            return (torch.arange(channels, device=input.device) > 0).to(parameter_dtype(input))
        return torch.cat((rest.new_zeros(1), rest))

    def weights_of(self, count: int, input: Tensor) -> Optional[Tensor]:
        """[count]."""
        weight = self.class_weight
        if weight is None:
            return None
        if weight.dim() == 1 and weight.shape[0] != count:
            raise InvalidValueError(f"weight has {weight.shape[0]} entries; {count} channels of input count")
        return weight.to(parameter_dtype(input)).expand(count)

    def shaped(self, loss: Tensor, input: Tensor, batch: bool = False) -> Tensor:
        """Unreduced losses [B, I] as MONAI has them: [B, N, 1, ...]; [N, 1, ...] if `batch`."""
        if self.reduction != "none":
            return loss
        loss = loss if self.include_background else loss[:, 1:]
        loss = loss[0] if batch else loss
        return loss.reshape(*loss.shape, *[1] * (input.dim() - 2))


class LabelLoss(Loss):
    """Losses of a target."""

    def __init__(
        self,
        include_background: bool,
        sigmoid: bool,
        softmax: bool,
        reduction: str,
        weight: Weight,
        to_onehot_y: bool,
        ignore_index: Optional[int],
        **arguments: Any,
    ) -> None:
        super().__init__(include_background, sigmoid, softmax, reduction, weight, **arguments)
        self.to_onehot_y = flag("to_onehot_y", to_onehot_y)
        self.ignore_index = ignore_index
        # Remembered, because a copy of it is another object.
        self._ignores_default = ignore_index is IGNORE_INDEX

    def extra_repr(self) -> str:
        return f"to_onehot_y={self.to_onehot_y}, ignore_index={self.ignore_index}, {super().extra_repr()}"

    def known(self, input: Tensor, target: Tensor) -> dict[str, Any]:
        """The target as arguments of the functions."""
        channels, shape = self.channels(input), require_tensor("target", target).shape
        if self.to_onehot_y and channels != 1:
            expected = [input.shape[0], 1, *input.shape[2:]]
            if list(shape) != expected:
                raise InvalidValueError(
                    f"target has shape {list(shape)}; with to_onehot_y=True it must be labels {expected}"
                )
            return {
                "labels": _whole(target) if target.is_floating_point() else target,
                "ignore_index": IGNORE_INDEX if self._ignores_default else self.ignore_index,
            }
        if shape != input.shape:
            labels_too = "" if channels == 1 else ", or labels with to_onehot_y=True"
            raise InvalidValueError(
                f"target has shape {list(shape)}; it must be that of input, {list(input.shape)}{labels_too}"
            )
        if self.ignore_index is None:
            return {"target": target}
        if channels != 1:
            if self._ignores_default:
                return {"target": target}
            raise InvalidValueError(
                f"ignore_index = {self.ignore_index} is for labels (to_onehot_y=True); give the mask"
            )
        # The labels 0 and 1 of one channel are a one-hot target.
        labelled = (target != self.ignore_index) & ~(target < 0)
        return {"target": target.where(labelled, torch.zeros_like(target)), "labelled": labelled}


def _whole(labels: Tensor) -> Tensor:
    """Floats as int32; what is no whole number as one that no label has, so that the loss fails."""
    whole = labels.to(torch.int32)
    return whole.where(whole == labels, torch.iinfo(torch.int32).max)


def _weight(weight: Any) -> Tensor:
    try:
        found = torch.as_tensor(weight, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidTypeError(
            f"weight is {weight!r}; it must be one number or one per class: {error}"
        ) from error
    if found.dim() > 1 or not (found >= 0).all():
        raise InvalidValueError(f"weight = {found.tolist()}; it must be one number >= 0 or one per class")
    return found
