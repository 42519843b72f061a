"""The losses of `segprior.torch.losses` as modules, with the arguments and conventions of `monai.losses`.

>>> import torch
>>> from segprior.torch import DiceLoss
>>> loss = DiceLoss(softmax=True, to_onehot_y=True, include_background=False)
>>> logits, labels = torch.randn(2, 3, 16, 16, requires_grad=True), torch.randint(0, 3, (2, 1, 16, 16))
>>> loss(logits, labels).backward()

`DiceLoss` takes the place of `monai.losses.DiceLoss`, `CombinedLoss` that of `DiceCELoss`, and their values
and gradients are MONAI's, with these differences:

- Without `sigmoid` and `softmax` the input is read as probabilities, which are >= 0; an image where they are
  not fails, and the loss is NaN (`segprior.torch.losses` says how to see which).
- ``reduction="mean"`` leaves out the classes of weight 0, and the images without a labelled voxel. MONAI
  counts them among what it divides by.
- A weight counts where only one class does, too; MONAI leaves it out there.
- Where MONAI warns and ignores an argument (``softmax=True`` or ``include_background=False`` with one
  channel) it is an error here; so is a label that is neither a class nor ignored.
- `other_act`, `jaccard` and `soft_label` are refused. Soft targets count as MONAI counts them by default.
- The target has no gradient. `ignore_index` is for labels, and negative ones are not known either; with a
  one-hot target give the mask. Masks are of bool or uint8.
- `CombinedLoss` divides a cross entropy by the weights ``w_i t_i`` of the labelled voxels, as
  `torch.nn.CrossEntropyLoss` does for labels; for soft targets that divides by the number of voxels. With
  ``sigmoid=True`` its cross entropy is that of each class on its own (`torch.nn.BCEWithLogitsLoss`); MONAI
  takes the softmax there unless there is a single channel.
"""

from __future__ import annotations

from typing import Any, Optional

from torch import Tensor

from .._call import IGNORE_INDEX
from .._losses_call import TERMS
from ..errors import InvalidValueError, NotSupportedError
from . import losses
from ._loss_base import LabelLoss, Loss, Weight
from ._loss_call import Numbers
from ._tensors import parameter_dtype

__all__ = ["CombinedLoss", "DiceLoss", "FocalDiceLoss", "PartialCELoss", "SizePenaltyLoss"]


class DiceLoss(LabelLoss):
    """Dice loss of each class of each image, ``1 - (2 sum p t + smooth_nr) / (sum p + sum t + smooth_dr)``.

    Args:
        include_background: False: class 0 does not count.
        to_onehot_y: True: the target is labels; False: it is one-hot.
        sigmoid, softmax: what makes probabilities of the input; neither: it is probabilities.
        squared_pred: the squares of p and t in the denominator.
        reduction: "mean", "sum" (of images and classes) or "none".
        smooth_nr, smooth_dr: >= 0.
        batch: the batch counts as one image.
        weight: of each class (without the background, if it does not count), >= 0; or one number for all.
        ignore_index: a label that means: not known.
        other_act, jaccard, soft_label: must be left at their defaults.
    """

    _function = staticmethod(losses.dice)

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: None = None,
        squared_pred: bool = False,
        jaccard: bool = False,
        reduction: str = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        weight: Weight = None,
        soft_label: bool = False,
        ignore_index: Optional[int] = None,
    ) -> None:
        for name, value in (("other_act", other_act), ("jaccard", jaccard), ("soft_label", soft_label)):
            if value:
                raise NotSupportedError(f"{name} is {value!r}; it is not supported")
        super().__init__(
            *(include_background, sigmoid, softmax, reduction, weight, to_onehot_y, ignore_index),
            squared=squared_pred,
            smooth_nr=smooth_nr,
            smooth_dr=smooth_dr,
            batch=batch,
        )

    def forward(self, input: Tensor, target: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """
        Args:
            input: [B, N, *S]. target: [B, 1, *S], labels of any integer or floating-point dtype, or [B, N,
                *S], one-hot. mask: [B, 1, *S], [B, *S], [1, *S] or [*S], bool or uint8; 0: does not count.

        Returns: the loss, []. For ``reduction="none"`` [B, N, 1, ...], with ``batch=True`` [N, 1, ...].
        """
        found = self._function(
            input,
            **self.known(input, target),
            **self.arguments,
            activation=self.activation,
            reduction=self.reduction,
            mask=mask,
            class_weights=self.weights(input),
        )
        return self.shaped(found, input, self.arguments["batch"])


class FocalDiceLoss(DiceLoss):
    """`DiceLoss` of sharpened probabilities: those above `threshold` move to 1, those below to 0, more so the
    larger `gamma` is (`segprior.losses.focal_dice`; SoftCut, eq. 27 and 28).

    Args:
        threshold: 0 .. 1. gamma: >= 1; 1 with threshold 1/2 is `DiceLoss`.
        others: keywords, as of `DiceLoss`; squared_pred is True unless given, as in the paper.
    """

    _function = staticmethod(losses.focal_dice)

    def __init__(
        self, threshold: float = 0.5, gamma: float = 2.0, *, squared_pred: bool = True, **others: Any
    ) -> None:
        super().__init__(squared_pred=squared_pred, **others)
        self.arguments |= {"threshold": threshold, "gamma": gamma}


class PartialCELoss(LabelLoss):
    """Cross entropy over the voxels whose label is known.

    Args:
        include_background: False: voxels of class 0 do not count.
        to_onehot_y, sigmoid, softmax, weight: as of `DiceLoss`.
        reduction: "mean": the sum over the labelled voxels divided by the sum of their weights, as
            `torch.nn.CrossEntropyLoss` has it; "sum"; "none": [B, *S].
        ignore_index: a label that means: not known. Negative ones mean it too.
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        reduction: str = "mean",
        weight: Weight = None,
        ignore_index: Optional[int] = IGNORE_INDEX,
    ) -> None:
        super().__init__(include_background, sigmoid, softmax, reduction, weight, to_onehot_y, ignore_index)

    def forward(self, input: Tensor, target: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Arguments as of `DiceLoss.forward`."""
        return losses.partial_cross_entropy(
            input,
            **self.known(input, target),
            activation=self.activation,
            reduction=self.reduction,
            mask=mask,
            class_weights=self.weights(input),
        )


class SizePenaltyLoss(Loss):
    """Penalty of classes that are too small or too large: the square of the voxels missing, or too many
    (`segprior.losses.size_penalty`).

    Args:
        include_background: False: the size of class 0 does not count.
        sigmoid, softmax, weight: as of `DiceLoss`.
        reduction: "mean", "sum" (of images, or groups, and classes) or "none": [B, N, 1, ...].
        normalise: "voxels": divided by the voxels of an image, which 16-bit scores need; None.
    """

    def __init__(
        self,
        include_background: bool = True,
        sigmoid: bool = False,
        softmax: bool = False,
        reduction: str = "mean",
        weight: Weight = None,
        normalise: Optional[str] = None,
    ) -> None:
        super().__init__(include_background, sigmoid, softmax, reduction, weight, normalise=normalise)

    def forward(
        self,
        input: Tensor,
        lower: Optional[Numbers] = None,
        upper: Optional[Numbers] = None,
        groups: Optional[Numbers] = None,
        mask: Optional[Tensor] = None,
    ) -> Tensor:
        """
        Args:
            input: [B, N, *S]. lower, upper: bounds in voxels of all N classes, [N] or [B, N]; one is needed.
            groups: [B], images of the same number form one volume; bounds are then [N] or [G, N].
            mask: as of `DiceLoss.forward`.
        """
        found = losses.size_penalty(
            input,
            lower,
            upper,
            groups=groups,
            **self.arguments,
            activation=self.activation,
            reduction=self.reduction,
            mask=mask,
            class_weights=self.weights(input),
        )
        return self.shaped(found, input)


class CombinedLoss(LabelLoss):
    """Weighted sum of losses in one pass over the input: cross entropy and Dice unless told otherwise.

    Args:
        size, cross_entropy, focal, dice, focal_dice: the weights of the terms.
        include_background: False: class 0 does not count in size, dice and focal_dice.
        to_onehot_y, sigmoid, softmax, squared_pred, smooth_nr, smooth_dr, batch, ignore_index: as of
            `DiceLoss`.
        reduction: "mean" or "sum", of each term.
        weight: of each of the N classes, in all terms.
        normalise, focal_gamma, focal_dice_threshold, focal_dice_gamma: as of `segprior.losses.combined`.
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        squared_pred: bool = False,
        reduction: str = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        weight: Weight = None,
        ignore_index: Optional[int] = None,
        *,
        size: float = 0.0,
        cross_entropy: float = 1.0,
        focal: float = 0.0,
        dice: float = 1.0,
        focal_dice: float = 0.0,
        normalise: Optional[str] = None,
        focal_gamma: float = 2.0,
        focal_dice_threshold: float = 0.5,
        focal_dice_gamma: float = 2.0,
    ) -> None:
        if reduction == "none":
            raise InvalidValueError("reduction is 'none'; CombinedLoss has 'mean' and 'sum'")
        super().__init__(
            *(include_background, sigmoid, softmax, reduction, weight, to_onehot_y, ignore_index),
            size=size,
            cross_entropy=cross_entropy,
            focal=focal,
            dice=dice,
            focal_dice=focal_dice,
            squared=squared_pred,
            smooth_nr=smooth_nr,
            smooth_dr=smooth_dr,
            batch=batch,
            normalise=normalise,
            focal_gamma=focal_gamma,
            focal_dice_threshold=focal_dice_threshold,
            focal_dice_gamma=focal_dice_gamma,
        )

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        lower: Optional[Numbers] = None,
        upper: Optional[Numbers] = None,
        groups: Optional[Numbers] = None,
        mask: Optional[Tensor] = None,
    ) -> Tensor:
        """Arguments as of `DiceLoss.forward` and `SizePenaltyLoss.forward`."""
        return losses.combined(
            input,
            **self.known(input, target),
            **self.arguments,
            lower=lower,
            upper=upper,
            groups=groups,
            activation=self.activation,
            reduction=self.reduction,
            mask=mask,
            class_weights=self.weights(input),
        )

    def weights(self, input: Tensor) -> Optional[Tensor]:
        """[N], or a row for each term: the terms of voxels have their background."""
        full = self.weights_of(self.channels(input), input)
        if self.include_background:
            return full
        if full is None:
            full = input.new_ones(input.shape[1], dtype=parameter_dtype(input))
        rows = full.repeat(len(TERMS), 1)
        for term in ("size", "dice", "focal_dice"):
            rows[TERMS[term], 0] = 0
        return rows
