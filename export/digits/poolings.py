"""The ways of pooling that the study compares; all by this package's operators, both directions."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from detector import CANONICAL_LEVEL, CANONICAL_SCALE, MAPS, STRIDES, PoolerOf, align_pooler
from torch import Tensor, nn
from torchvision.ops.poolers import MultiScaleRoIAlign as TorchvisionPooler
from torchvision.ops.poolers import initLevelMapper

from ort_roialign.torch import prroi_pool, roi_pool

# A map [N, C, H, W], rows of image number and box [K, 5], bins of a side, cells per image pixel.
PoolOneMap = Callable[[Tensor, Tensor, int, float], Tensor]


class LevelwisePooler(TorchvisionPooler):
    """Pool each box from the map of its level, for operators that know one map.

    Levels are those of torchvision's `MultiScaleRoIAlign`, which detectors insist on.
    """

    def __init__(self, pool: PoolOneMap, bins: int) -> None:
        super().__init__(MAPS, bins, 0)
        self.pool, self.bins = pool, bins
        first, last = (stride.bit_length() - 1 for stride in (STRIDES[0], STRIDES[-1]))
        self.levels = initLevelMapper(first, last, CANONICAL_SCALE, CANONICAL_LEVEL)

    def forward(
        self,
        x: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        image_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        numbered = [nn.functional.pad(each, (1, 0), value=i) for i, each in enumerate(boxes)]
        rows, levels = torch.cat(numbered), self.levels(list(boxes))
        numbers, pooled = [], []
        for level, (name, stride) in enumerate(zip(MAPS, STRIDES, strict=True)):
            numbers.append(torch.nonzero(levels == level)[:, 0])
            pooled.append(self.pool(x[name], rows[numbers[-1]], self.bins, 1 / stride))
        return torch.cat(pooled)[torch.argsort(torch.cat(numbers))]


# Name -> what makes its poolers.
POOLINGS: dict[str, PoolerOf] = {
    "roi_pool": lambda bins: LevelwisePooler(roi_pool, bins),
    "roi_align_max_4": partial(align_pooler, samples=2, mode="max"),
    "roi_align_avg_4": align_pooler,
    "roi_align_avg_1": partial(align_pooler, samples=1),
    "roi_align_avg_adaptive": partial(align_pooler, samples=0),
    "prroi_pool": lambda bins: LevelwisePooler(prroi_pool, bins),
}
TITLES = {
    "roi_pool": "RoiPool",
    "roi_align_max_4": "RoiAlign, maximum of 4",
    "roi_align_avg_4": "RoiAlign, average of 4",
    "roi_align_avg_1": "RoiAlign, 1 sample",
    "roi_align_avg_adaptive": "RoiAlign, average, adaptive",
    "prroi_pool": "PrRoiPool",
}
