"""The detectors of the demo: which there are, and how one is built with weights.

Nothing can be assumed to be downloadable, so the weights are random unless a file is given.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import detection

from ort_roialign.cli.calibration import calibrate_random_detector
from ort_roialign.errors import OrtRoiAlignError

RANDOM_SEED = 20170320
# Its first dimension is the number of classes.
CLASS_WEIGHTS = "roi_heads.box_predictor.cls_score.weight"
# Of why weights cannot be used, in characters.
LONGEST_REASON = 200


@dataclass(frozen=True)
class DetectorSpec:
    """One torchvision detector and how it can be exported.

    Attributes:
        name: the name of torchvision's function that builds it.
        title: its name in the tables.
        build: that function.
        has_masks: whether it returns masks.
        exporters: the exporters that can export it: "torchscript", "dynamo".
        exact_sides: short and long side of a photograph, in pixels, that the detector resizes
            by a power of two. PyTorch and onnxruntime resize any other a little differently, and
            random weights, unlike trained ones, enlarge that a hundredfold.
    """

    name: str
    title: str
    build: Callable[..., nn.Module]
    has_masks: bool
    exporters: tuple[str, ...]
    exact_sides: tuple[int, int]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        return ("boxes", "labels", "scores") + (("masks",) if self.has_masks else ())


MASK_RCNN = DetectorSpec(
    name="maskrcnn_resnet50_fpn",
    title="Mask R-CNN",
    build=detection.maskrcnn_resnet50_fpn,
    has_masks=True,
    exporters=("torchscript",),  # the other one takes a minute more
    exact_sides=(400, 600),
)
MOBILENET = DetectorSpec(
    name="fasterrcnn_mobilenet_v3_large_320_fpn",
    title="Faster R-CNN",
    build=detection.fasterrcnn_mobilenet_v3_large_320_fpn,
    has_masks=False,
    exporters=("torchscript", "dynamo"),
    exact_sides=(640, 960),
)


class Detector(nn.Module):
    """A torchvision detector as a function of one image with plain tensors as outputs."""

    def __init__(self, spec: DetectorSpec, model: nn.Module) -> None:
        """Wrap `model`, which was built by `spec`."""
        super().__init__()
        self.spec = spec
        self.model = model

    @property
    def max_detections(self) -> int:
        """The largest number of detections that the model returns."""
        heads: Any = self.model.roi_heads
        return int(heads.detections_per_img)

    @property
    def score_threshold(self) -> float:
        """The score below which the model drops a detection."""
        heads: Any = self.model.roi_heads
        return float(heads.score_thresh)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Detect.

        Args:
            image: [3, height, width], float32, 0 to 1.

        Returns:
            boxes [D, 4] (x1, y1, x2, y2 in pixels), labels [D] (int64), scores [D] and, if the
            model has them, masks [D, 1, height, width] (probabilities).
        """
        result = self.model([image])[0]
        return tuple(result[name] for name in self.spec.outputs)


def build_detector(spec: DetectorSpec, weights: Path | None, image: torch.Tensor) -> Detector:
    """Build a detector in evaluation mode.

    Args:
        spec: which detector.
        weights: a file with torchvision's state dict for it; None gives random weights that are
            scaled so that the detector finds its full number of different boxes on `image`.
        image: [3, height, width], float32, 0 to 1.

    Raises:
        OrtRoiAlignError: if the file of weights cannot be read or is not for this model.
    """
    if weights is None:
        torch.manual_seed(RANDOM_SEED)
        model = spec.build(weights=None, weights_backbone=None)
        calibrate_random_detector(model, image)
    else:
        model = _with_weights(spec, weights)
    return Detector(spec, model).eval()


def _with_weights(spec: DetectorSpec, path: Path) -> nn.Module:
    try:
        state = _read_state_dict(path)
        num_classes = state[CLASS_WEIGHTS].shape[0]
        model = spec.build(weights=None, weights_backbone=None, num_classes=num_classes)
        model.load_state_dict(state)
    except Exception as error:  # load_state_dict, too, raises many kinds
        # It may list hundreds of names, one a line.
        reason = textwrap.shorten(str(error), LONGEST_REASON) or type(error).__name__
        raise OrtRoiAlignError(
            f"{path} is not a state dict of torchvision's {spec.name}: {reason}"
        ) from error
    return model


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of weights.

    Raises:
        ValueError: if it holds something else; the text names what.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds
        # PyTorch's own text advises to read the file without the check that keeps it from running.
        raise ValueError(f"PyTorch cannot read it ({type(error).__name__})") from error
    if isinstance(state, dict):
        # Training checkpoints keep the model's weights next to the optimiser's.
        state = state.get("model", state)
    if not isinstance(state, dict):
        raise ValueError(f"it holds an object of type {type(state).__name__}")
    if not isinstance(state.get(CLASS_WEIGHTS), torch.Tensor):
        raise ValueError(f"it has no tensor {CLASS_WEIGHTS}")
    return state
