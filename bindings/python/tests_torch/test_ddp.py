"""Training in two processes (DistributedDataParallel, gloo) is training of one on the joined batch."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import segprior
from segprior.torch import DiceLoss, PriorSoftmax

STEPS = 3


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    prior = PriorSoftmax(eps=0.5, iters=5, tv=segprior.TV(lam=0.02), learnable=("eps", "tv_lam"))
    network = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1), prior)
    return network.double()


def make_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand((4, 1, 12, 10), generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 3, (4, 1, 12, 10), generator=generator)


def train(network: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """The gradients of the first step, and the parameters after the last."""
    loss, optimizer = DiceLoss(to_onehot_y=True), torch.optim.SGD(network.parameters(), lr=0.5)
    gradients: list[Tensor] = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(network(images), labels).backward()
        gradients = gradients or [p.grad.clone() for p in network.parameters() if p.grad is not None]
        optimizer.step()
    return gradients + [p.detach() for p in network.parameters()]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    images, labels = make_batch()
    half = slice(2 * rank, 2 * rank + 2)
    found = train(DistributedDataParallel(make_network()), images[half], labels[half])
    torch.save(found, f"{folder}/rank{rank}")
    dist.destroy_process_group()


def test_two_processes(tmp_path: Path) -> None:
    expected = train(make_network(), *make_batch())
    torch.multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"rank{rank}")
        # Every parameter has a gradient: four of convolutions, eps and tv_lam.
        assert len(found) == len(expected) == 12
        assert all(gradient.abs().sum() > 0 for gradient in found[:6])
        for own, joined in zip(found, expected):
            torch.testing.assert_close(own, joined, rtol=1e-9, atol=1e-12)  # sums in another order
