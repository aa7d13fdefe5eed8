"""Poolers as torchvision, detectron2 and mmdet have them, to export and convert.

The latter two are written here from their published rules: they are no packages of the tests.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align


class TorchvisionPooler(torch.nn.Module):
    """MultiScaleRoIAlign on boxes of one image or of several."""

    def __init__(self, num_maps: int, images: int) -> None:
        super().__init__()
        names = [str(number) for number in range(num_maps)]
        self.pool = MultiScaleRoIAlign(names, output_size=3, sampling_ratio=2)
        self.images = images

    def forward(self, *inputs: Tensor) -> Tensor:
        boxes, maps = inputs[: self.images], inputs[self.images :]
        named = OrderedDict((str(number), each) for number, each in enumerate(maps))
        # Strides of 4, 8 and so on, as the maps are a quarter of this and so on.
        size = (maps[0].shape[2] * 4, maps[0].shape[3] * 4)
        return self.pool(named, list(boxes), [size] * self.images)


def _counts(boxes: list[Tensor]) -> Tensor:
    counts = [each.shape[0] for each in boxes]
    return torch.stack(counts) if torch.jit.is_tracing() else torch.tensor(counts)


@torch.jit.script_if_tracing
def _repeat_images(boxes: Tensor, counts: Tensor) -> Tensor:
    """Return each box's image, as newer releases of detectron2 number them."""
    return torch.repeat_interleave(torch.arange(len(counts), dtype=boxes.dtype), counts)


class Detectron2Pooler(torch.nn.Module):
    """ROIPooler with ROIAlignV2: an epsilon in the logarithm, boxes moved by half a cell."""

    def __init__(self, num_maps: int, aligned: bool = True, repeat_images: bool = False) -> None:
        super().__init__()
        self.repeat_images = repeat_images
        self.scales = [1 / (4 << number) for number in range(num_maps)]
        self.first, self.last = 2, 1 + num_maps
        self.aligned = aligned

    def forward(self, boxes0: Tensor, boxes1: Tensor, *maps: Tensor) -> Tensor:
        boxes = [boxes0, boxes1]
        if self.repeat_images:
            numbers = _repeat_images(torch.cat(boxes), _counts(boxes))[:, None]
        else:
            each_images = [torch.full_like(each[:, :1], n) for n, each in enumerate(boxes)]
            numbers = torch.cat(each_images)
        rows = torch.cat([numbers, torch.cat(boxes)], dim=1)
        areas = [(each[:, 2] - each[:, 0]) * (each[:, 3] - each[:, 1]) for each in boxes]
        sides = torch.sqrt(torch.cat(areas))
        levels = torch.floor(4 + torch.log2(sides / 224 + 1e-8))
        levels = torch.clamp(levels, min=self.first, max=self.last).to(torch.int64) - self.first
        pooled = torch.zeros(
            (rows.shape[0], maps[0].shape[1], 4, 4), dtype=rows.dtype, device=rows.device
        )
        for number, (scale, each) in enumerate(zip(self.scales, maps, strict=True)):
            chosen = torch.nonzero(levels == number).squeeze(1)
            result = roi_align(each, rows[chosen], (4, 4), scale, 0, self.aligned)
            pooled.index_put_((chosen,), result)
        return pooled


class MmdetPooler(torch.nn.Module):
    """SingleRoIExtractor: levels from 0, an epsilon in the logarithm, images in the boxes.

    `masked` pools as mmdet did for export, `in_front` as mmdeploy does: with two boxes of each
    level in front of the others.
    """

    def __init__(self, num_maps: int, masked: bool = False, in_front: bool = False) -> None:
        super().__init__()
        self.scales = [1 / (4 << number) for number in range(num_maps)]
        self.masked, self.in_front = masked, in_front

    def forward(self, rois: Tensor, *maps: Tensor) -> Tensor:
        sides = torch.sqrt((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2]))
        levels = torch.floor(torch.log2(sides / 56 + 1e-6))
        levels = levels.clamp(min=0, max=len(maps) - 1).long()
        if self.masked:
            return self._pool_all(rois, levels, maps)
        pooled = maps[0].new_zeros(rois.size(0), maps[0].size(1), 7, 7)
        first = 2 * len(maps) if self.in_front else 0
        if first:
            each_level = torch.arange(len(maps), dtype=levels.dtype)
            levels = torch.cat((each_level, each_level, levels))
            rois = torch.cat((rois.new_zeros(first, 5), rois))
            pooled = torch.cat((pooled.new_zeros(first, *pooled.shape[1:]), pooled))
        for number, (scale, each) in enumerate(zip(self.scales, maps, strict=True)):
            chosen = (levels == number).nonzero(as_tuple=False).squeeze(1)
            pooled[chosen] = roi_align(each, rois[chosen], (7, 7), scale, 2, True)
        return pooled[first:] if first else pooled

    def _pool_all(self, rois: Tensor, levels: Tensor, maps: tuple[Tensor, ...]) -> Tensor:
        """Pool every box on every map, and add what a mask keeps."""
        channels = maps[0].shape[1]
        pooled = rois[:, :1].expand(-1, channels * 49).reshape(-1, channels, 7, 7) * 0
        for number, (scale, each) in enumerate(zip(self.scales, maps, strict=True)):
            mask = (levels == number).float().unsqueeze(-1)
            result = roi_align(each, rois * mask, (7, 7), scale, 2, True)
            pooled = pooled + result * mask.expand(-1, channels * 49).reshape(pooled.shape)
        return pooled


def random_maps(rng: torch.Generator, num_maps: int, images: int) -> list[Tensor]:
    """Return maps [images, 5, H, W] of strides 4, 8 and so on."""
    sizes = [(48 >> number, 64 >> number) for number in range(num_maps)]
    return [torch.randn((images, 5, *size), generator=rng) for size in sizes]


def random_boxes(rng: torch.Generator, count: int) -> Tensor:
    """Return boxes [count, 4] of all levels and beyond, as they lie in an image or across it."""
    sides = torch.exp(torch.rand((count, 1), generator=rng) * math.log(400)) * 3
    stretch = torch.exp(torch.rand((count, 1), generator=rng) * 2 - 1)
    extents = torch.cat([sides * stretch, sides / stretch], dim=1)
    corners = torch.rand((count, 2), generator=rng) * 120 - 10
    return torch.cat([corners, corners + extents], dim=1)


def with_images(rng: torch.Generator, boxes: Tensor, images: int) -> Tensor:
    """Put a random image in front of each box."""
    numbers = torch.randint(0, images, (len(boxes), 1), generator=rng)
    return torch.cat([numbers.to(boxes), boxes], dim=1)
