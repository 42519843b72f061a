"""segprior for torch: differentiable functions, layers and losses, for eager mode and `torch.compile`.

| here | what |
|---|---|
| `softmax`, `softmax_with_duals` | the entropic softmax with priors, as `segprior.softmax` |
| `PriorSoftmax`, `VPTVSoftmax`, `STDSoftmax` | the same as layers, with learnable parameters |
| `softcut`, `softcut_with_report` | SoftCut, differentiable twice |
| `SoftCut2d`, `SoftCut3d` | SoftCut as layers, which predict the edge weights from features |
| `losses`, `lagrangian_proposal` | the losses of `segprior.losses`; size-constrained proposals |
| `DiceLoss`, `FocalDiceLoss`, `PartialCELoss`, `SizePenaltyLoss`, `CombinedLoss` | as modules like MONAI's |

>>> import torch, segprior
>>> import segprior.torch
>>> scores = torch.randn(1, 3, 32, 32, requires_grad=True)
>>> u = segprior.torch.softmax(scores, eps=0.5, iters=20, tv=segprior.TV(lam=1.0))
>>> u[:, 0].mean().backward()
>>> scores.grad.shape
torch.Size([1, 3, 32, 32])

All work on torch's own memory, on its current CUDA stream without waiting for it (in CUDA graphs too), with
`torch.get_num_threads()` threads on the CPU. They are the custom operators ``torch.ops.segprior.*``: tensors
and options in, tensors out. vmap takes the elements of the mapped axis in turn. torch.compile makes numbers
(eps, lam, weights of terms, ...) part of the graph and compiles anew for each new one: give those that change
as tensors, where the argument may be one. Needs torch >= 2.7; `import segprior` alone does not import torch.
"""

from . import _requirements as _requirements  # isort: skip
from . import losses
from .loss_modules import CombinedLoss, DiceLoss, FocalDiceLoss, PartialCELoss, SizePenaltyLoss
from .modules import PriorSoftmax, STDSoftmax, VPTVSoftmax
from .proposals import ProposalOutput, lagrangian_proposal, lagrangian_proposal_with_report
from .report import Report
from .softcut import SoftcutOutput, softcut, softcut_with_report
from .softcut_modules import PredictedEdges, SoftCut2d, SoftCut3d
from .softmax import SoftmaxOutput, softmax, softmax_with_duals

__all__ = [
    "CombinedLoss",
    "DiceLoss",
    "FocalDiceLoss",
    "PartialCELoss",
    "PredictedEdges",
    "PriorSoftmax",
    "ProposalOutput",
    "Report",
    "STDSoftmax",
    "SizePenaltyLoss",
    "SoftCut2d",
    "SoftCut3d",
    "SoftcutOutput",
    "SoftmaxOutput",
    "VPTVSoftmax",
    "lagrangian_proposal",
    "lagrangian_proposal_with_report",
    "losses",
    "softcut",
    "softcut_with_report",
    "softmax",
    "softmax_with_duals",
]
