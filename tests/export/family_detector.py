"""A small detector whose heads pool with every operator of the family, to be trained and exported.

Letters: `N` images, `K` boxes of all images, `L` boxes of one.
"""

from __future__ import annotations

import torch
from example_modules import TwoLevelBackbone
from torch import Tensor, nn
from torch.nn import functional

import ort_roialign.torch as roi

BINS = (2, 2)
SCALE, SCALES = 1 / 8, [1 / 8, 1 / 16]
# A square box of 24 pixels or more is pooled from the coarser map, of level 4.
LEVELS = {"canonical_scale": 24, "canonical_level": 4}
NUM_CLASSES = 3
HEADS = (
    "average",
    "maximum",
    "pyramid",
    "turned",
    "turned_pyramid",
    "rounded",
    "position_sensitive",
    "position_sensitive_rounded",
    "precise",
    "deformable",
)


class FamilyDetector(nn.Module):
    """Two maps of features, and heads whose sum tells class and shift of given boxes.

    A head is a convolution, a pooling and a linear layer, none shared with another head. So its
    convolution learns only where its pooling has a gradient for the maps, `shift` only where
    `prroi_pool` has one for the boxes, and `offset` only where `deform_roi_pool` has one for the
    offset.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TwoLevelBackbone()
        channels, num_bins = self.backbone.out_channels, BINS[0] * BINS[1]
        self.average = roi.RoIAlign(BINS, SCALE, 2, True)
        self.maximum = roi.RoIAlign(BINS, SCALE, -1, False, "max")
        self.turned = roi.RoIAlignRotated(BINS, SCALE, 2, clockwise=True)
        self.rounded = roi.RoIPool(BINS, SCALE)
        self.position_sensitive = roi.PSRoIAlign(BINS, SCALE, -1)
        self.position_sensitive_rounded = roi.PSRoIPool(BINS, SCALE)
        self.precise = roi.PrRoIPool(BINS, SCALE)
        self.deformable = roi.DeformRoIPool(BINS, SCALE, 2, gamma=0.5)
        self.shift = nn.Parameter(torch.zeros(4))  # pixels
        self.offset = nn.Linear(channels * num_bins, 2 * num_bins)
        self.convolutions, self.linears = nn.ModuleDict(), nn.ModuleDict()
        for head in HEADS:
            of_bins = num_bins if head.startswith("position_sensitive") else 1
            self.convolutions[head] = nn.Conv2d(channels, channels * of_bins, 1)
            self.linears[head] = nn.Linear(channels * num_bins, NUM_CLASSES + 4)

    def forward(self, images: Tensor, boxes0: Tensor, boxes1: Tensor) -> tuple[Tensor, Tensor]:
        """Return class scores [K, 3] and shifts [K, 4] of the boxes [L, 4] of two images."""
        maps = self.backbone(images)
        coarse = maps["1"]
        fine = maps["0"] + functional.interpolate(coarse, size=maps["0"].shape[2:])

        def of_head(head: str) -> list[Tensor]:
            return [self.convolutions[head](each) for each in (fine, coarse)]

        boxes = [boxes0, boxes1]
        rows = torch.cat([functional.pad(b, (1, 0), value=n) for n, b in enumerate(boxes)])
        turned = self.turn(rows)
        average = self.average(of_head("average")[0], boxes)
        offset = self.offset(average.flatten(1)).reshape(-1, 2, *BINS)
        pooled = {
            "average": average,
            "pyramid": roi.multiscale_roi_align(
                of_head("pyramid"), boxes, BINS, SCALES, 2, True, **LEVELS
            ),
            "turned": self.turned(of_head("turned")[0], turned),
            "turned_pyramid": roi.multiscale_roi_align_rotated(
                of_head("turned_pyramid"), turned, BINS, SCALES, mode="max", **LEVELS
            ),
            "precise": self.precise(
                of_head("precise")[0], rows + functional.pad(self.shift, (1, 0))
            ),
            "deformable": self.deformable(of_head("deformable")[0], rows, offset),
        }
        for head in ("maximum", "rounded", "position_sensitive", "position_sensitive_rounded"):
            pooled[head] = getattr(self, head)(of_head(head)[0], boxes)
        votes = [self.linears[head](pooled[head].flatten(1)) for head in HEADS]
        summed = torch.stack(votes).sum(dim=0)
        return summed[:, :NUM_CLASSES], summed[:, NUM_CLASSES:]

    @staticmethod
    def turn(rows: Tensor) -> Tensor:
        """Return rows [K, 6] with the centres, the sides and an angle each, from rows [K, 5]."""
        first, last = rows[:, 1:3], rows[:, 3:5]
        angles = rows[:, 1:2] * 0.1
        return torch.cat([rows[:, :1], (first + last) / 2, last - first, angles], dim=1)
