"""Trainers for nnU-Net v2 whose Dice and cross entropy are segprior's: one pass over the logits for both.

Copy this file into ``nnunetv2/training/nnUNetTrainer/`` (nnU-Net looks for trainers there), then

    nnUNetv2_train DATASET CONFIGURATION FOLD -tr nnUNetTrainerSegprior

What nnU-Net's own loss does stays: raw logits, labels or regions, the ignore label, batch Dice and deep
supervision as the plans say, autocast. Where the numbers differ from nnU-Net's:

- The Dice term is 1 - Dice, not -Dice: the reported loss is higher by 1, the gradients are the same.
- Images without a labelled voxel, and classes of weight 0, do not count in means.
- Regions: the cross entropy is the mean over the regions too, with an ignore label as well as without one.
- Batch Dice with several GPUs is that of each GPU's part of the batch; nnU-Net gathers the whole. The log
  says so.
"""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from segprior.torch import CombinedLoss


class SegmentationLoss(nn.Module):
    """Dice and cross entropy of nnU-Net's logits and targets.

    Args:
        regions: the target is one channel for each region, and one more if there is an ignore label;
            otherwise it is labels [B, 1, *S], and the background does not count in Dice.
        ignore_label: None: there is none.
        batch_dice: the batch counts as one image.
        options: others of `segprior.torch.CombinedLoss`.
    """

    def __init__(self, regions: bool, ignore_label: Optional[int], batch_dice: bool, **options: Any) -> None:
        super().__init__()
        self.masked_regions = regions and ignore_label is not None
        self.loss = CombinedLoss(
            include_background=regions,
            to_onehot_y=not regions,
            sigmoid=regions,
            softmax=not regions,
            batch=batch_dice,
            ignore_index=None if regions else ignore_label,
            **options,
        )

    def forward(self, net_output: Tensor, target: Tensor) -> Tensor:
        if not self.masked_regions:
            return self.loss(net_output, target)
        return self.loss(net_output, target[:, :-1], mask=target[:, -1] == 0)


class nnUNetTrainerSegprior(nnUNetTrainer):
    """nnU-Net's trainer with `SegmentationLoss`."""

    #: others of `segprior.torch.CombinedLoss`; {"focal_dice": 1.0, "dice": 0.0}, say
    loss_options: dict[str, Any] = {}

    def _build_loss(self) -> nn.Module:
        regions, batch_dice = self.label_manager.has_regions, self.configuration_manager.batch_dice
        if batch_dice and self.is_ddp:
            self.print_to_log_file("segprior: batch Dice is that of each process's part of the batch")
        loss = SegmentationLoss(regions, self.label_manager.ignore_label, batch_dice, **self.loss_options)
        loss.to(self.device)
        if self._do_i_compile():
            loss = torch.compile(loss)
        if not self.enable_deep_supervision:
            return loss
        # Each output of lower resolution counts half as much; the lowest not at all. Under DDP its parameters
        # must have a gradient all the same, unless the network is compiled.
        scales = len(self._get_deep_supervision_scales())
        weights = np.array([0.5**scale for scale in range(scales)])
        weights[-1] = 1e-6 if self.is_ddp and not self._do_i_compile() else 0
        return DeepSupervisionWrapper(loss, weights / weights.sum())
