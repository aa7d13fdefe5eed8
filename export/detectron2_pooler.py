"""A pooler with the arguments of detectron2's ROIPooler as one operator, exported and run.

    python export/detectron2_pooler.py pooler.onnx

In a model of detectron2, put it into the place of `model.roi_heads.box_pooler`; its `forward` takes
`[x.tensor for x in box_lists]` where detectron2's takes its own box lists.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

import ort_roialign
from ort_roialign import onnx_export
from ort_roialign.torch import multiscale_roi_align, multiscale_roi_align_rotated

SIZES = [(120, 160), (60, 80), (30, 40), (15, 20)]


class ROIPooler(torch.nn.Module):
    """Pools each box from the level of its size, as detectron2's module of this name."""

    def __init__(
        self,
        output_size: int | tuple[int, int],
        scales: list[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        if pooler_type not in ("ROIAlign", "ROIAlignV2", "ROIAlignRotated"):
            raise ValueError(f"pooler_type must be a kind of ROIAlign; got {pooler_type}")
        self.output_size = output_size
        self.scales = scales
        self.sampling_ratio = sampling_ratio
        self.pooler_type = pooler_type
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level

    def forward(self, x: list[torch.Tensor], box_lists: list[torch.Tensor]) -> torch.Tensor:
        """Pool boxes [L, 4], or [L, 5] with angles in degrees, of each image."""
        rule = {
            "canonical_scale": self.canonical_box_size,
            "canonical_level": self.canonical_level,
            "log_epsilon": 1e-8,
            "level_epsilon": 0.0,
        }
        size, ratio = self.output_size, self.sampling_ratio
        if self.pooler_type == "ROIAlignRotated":
            rows = [
                torch.cat([boxes.new_full((boxes.shape[0], 1), image), boxes], dim=1)
                for image, boxes in enumerate(box_lists)
            ]
            return multiscale_roi_align_rotated(
                x, torch.cat(rows), size, self.scales, ratio, angle_unit="degrees", **rule
            )
        aligned = self.pooler_type == "ROIAlignV2"
        return multiscale_roi_align(x, box_lists, size, self.scales, ratio, aligned, **rule)


def main(
    path: Annotated[Path, typer.Argument(help="the ONNX file to write")],
    pooler_type: Annotated[str, typer.Option(help="as in detectron2")] = "ROIAlignV2",
) -> None:
    """Exports the pooler for any number of boxes, and runs it once."""
    torch.manual_seed(0)
    pooler = ROIPooler(7, [1 / 4, 1 / 8, 1 / 16, 1 / 32], 0, pooler_type).eval()
    maps = [torch.randn(1, 16, height, width) for height, width in SIZES]
    boxes = torch.rand(9, 2) * torch.tensor([300.0, 200.0])
    boxes = torch.cat([boxes, boxes + torch.rand(9, 2) * 300], dim=1)
    if pooler_type == "ROIAlignRotated":
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] / 2, torch.rand(9, 1) * 90], dim=1)
    names = ["p2", "p3", "p4", "p5", "boxes"]
    free = [{2: f"{name}_height", 3: f"{name}_width"} for name in names[:-1]]
    onnx_export.export(
        pooler, (maps, [boxes]), path, input_names=names, dynamic_shapes=(free, [{0: "boxes"}])
    )
    session = ort_roialign.InferenceSession(path)
    fewer = boxes[:4]
    arrays = [each.numpy() for each in (*maps, fewer)]
    (pooled,) = session.run(None, dict(zip(names, arrays, strict=True)))
    difference = abs(pooled - pooler(maps, [fewer]).numpy()).max()
    print(f"pooled: {list(pooled.shape)}, {difference:.0e} from PyTorch's")


if __name__ == "__main__":
    typer.run(main)
