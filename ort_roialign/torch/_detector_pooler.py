"""torchvision's pooler of a detector with a feature pyramid, as one operator.

Source: `torchvision.ops.MultiScaleRoIAlign`, whose scales and levels these are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ort_roialign.errors import InvalidArgumentError
from ort_roialign.torch._boxes import OutputSize
from ort_roialign.torch._dependencies import require_torchvision
from ort_roialign.torch._multi_scale import multiscale_roi_align
from ort_roialign.torch._sizes import number_of_size

require_torchvision()

from torchvision.ops import poolers  # noqa: E402

# mypy does not know torchvision.
_TorchvisionPooler: Any = poolers.MultiScaleRoIAlign


class MultiScaleRoIAlign(_TorchvisionPooler):  # type: ignore[misc]
    """torchvision's `MultiScaleRoIAlign`, pooling by `multiscale_roi_align`, and with `mode`.

    It takes the original's place in a detector: `detector.roi_heads.box_roi_pool = ...`. As there,
    scales are powers of two that the first call infers from the heights of maps and images and
    that later calls keep, in `scales`; levels are in `map_levels`. It needs torchvision, which the
    extra `export` has.

    Args:
        featmap_names: names of the maps to pool from, as the mapping that is pooled has them.
        output_size: bins PH, PW, or one number for both.
        sampling_ratio: samples per bin and axis; 0 or less is adaptive.
        canonical_scale: side of a square box of the canonical level, in image pixels.
        canonical_level: level of such a box.
        mode: "avg" or "max" of a bin's interpolated samples.
    """

    scales: list[float] | None
    map_levels: Any

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: OutputSize,
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
        mode: str = "avg",
    ) -> None:
        super().__init__(
            featmap_names,
            output_size,
            sampling_ratio,
            canonical_scale=canonical_scale,
            canonical_level=canonical_level,
        )
        self.mode = mode

    def forward(
        self,
        x: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        image_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Return the pooled boxes [K, C, PH, PW].

        Args:
            x: name -> map [N, C, H_l, W_l], the finest first; other names are passed over.
            boxes: of each image [L, 4], x1, y1, x2, y2 in image pixels.
            image_shapes: height and width of each image, for the scales.

        Raises:
            InvalidArgumentError: if an argument breaks the rules above, there is no map of these
                names or no image, or the maps of some level are missing between others.
        """
        maps = [each for name, each in x.items() if name in self.featmap_names]
        if self.scales is None or self.map_levels is None:
            scales = self._inferred_scales(maps, image_shapes)
            first, last = (int(-math.log2(scale)) for scale in (scales[0], scales[-1]))
            self.scales = scales
            self.map_levels = poolers.initLevelMapper(
                first, last, self.canonical_scale, self.canonical_level
            )
        levels = self.map_levels
        return multiscale_roi_align(
            maps,
            boxes,
            self.output_size,
            self.scales,
            self.sampling_ratio,
            mode=self.mode,
            canonical_scale=levels.s0,
            canonical_level=levels.lvl0,
            min_level=levels.k_min,
            max_level=levels.k_max,
            level_epsilon=levels.eps,
        )

    def _inferred_scales(
        self, maps: Sequence[Tensor], image_shapes: Sequence[tuple[int, int]]
    ) -> list[float]:
        """The maps' scales, of the example's sizes in a trace: no size becomes a constant."""
        if not maps or not image_shapes:
            raise InvalidArgumentError(
                f"MultiScaleRoIAlign: x must have maps named {self.featmap_names}, and "
                f"image_shapes an image; got {len(maps)} maps and {len(image_shapes)} images"
            )
        image_heights = [number_of_size(height) for height, _ in image_shapes]
        map_heights = [number_of_size(each.shape[-2]) for each in maps]
        known = [height for height in (*image_heights, *map_heights) if height is not None]
        if len(known) < len(image_heights) + len(map_heights):
            raise InvalidArgumentError(
                "MultiScaleRoIAlign: heights must be known when scales are inferred; got some that "
                "depend on data; call the module once before it is traced"
            )
        image_height = max(known[: len(image_heights)])
        return [
            2.0 ** round(math.log2(height / image_height)) for height in known[len(image_heights) :]
        ]

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, mode={self.mode!r})"
