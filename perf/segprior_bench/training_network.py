"""A U-Net (Ronneberger, Fischer, Brox, arXiv 1505.04597) of any width and depth, with batch normalisation."""

from __future__ import annotations

import torch
from torch import nn


def _double(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for given in (inputs, outputs):
        layers += [nn.Conv2d(given, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """[B, inputs, H, W] to [B, outputs, H, W]; H and W are multiples of ``2 ** depth``.

    Level n has ``width * 2 ** n`` channels, n = 0 .. depth.
    """

    def __init__(self, inputs: int, outputs: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * 2**n for n in range(depth + 1)]
        self.first = _double(inputs, width)
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), _double(a, b)) for a, b in zip(widths, widths[1:])
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in zip(widths, widths[1:]))
        self.joined = nn.ModuleList(_double(2 * a, a) for a in widths[:-1])
        self.last = nn.Conv2d(width, outputs, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        levels = [self.first(images)]
        for down in self.down:
            levels.append(down(levels[-1]))
        found = levels.pop()
        for up, joined, level in zip(reversed(self.up), reversed(self.joined), reversed(levels)):
            found = joined(torch.cat([level, up(found)], 1))
        return self.last(found)
