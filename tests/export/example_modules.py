"""Modules to export: one RoI operator each, and torchvision's detectors on a tiny backbone."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torchvision
from torchvision.models import detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign


class FunctionalRoiAlign(torch.nn.Module):
    def __init__(self, sampling_ratio: int, aligned: bool) -> None:
        super().__init__()
        self.sampling_ratio, self.aligned = sampling_ratio, aligned

    def forward(self, x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        return torchvision.ops.roi_align(x, rois, (3, 4), 0.125, self.sampling_ratio, self.aligned)


class ListOfBoxes(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = torchvision.ops.RoIAlign(3, spatial_scale=0.125, sampling_ratio=2, aligned=True)

    def forward(self, x: torch.Tensor, boxes0: torch.Tensor, boxes1: torch.Tensor) -> torch.Tensor:
        return self.pool(x, [boxes0, boxes1])


class RoiPoolWithArgmax(torch.nn.Module):
    def forward(self, x: torch.Tensor, rois: torch.Tensor) -> Any:
        return torch.ops.torchvision.roi_pool(x, rois, 0.125, 3, 4)


class ResizedImage(torch.nn.Module):
    """An image as torchvision's detectors resize and pad it."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = GeneralizedRCNNTransform(96, 160, [0.0] * 3, [1.0] * 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.transform([image])[0].tensors


class TwoLevelBackbone(torch.nn.Module):
    """Feature maps of strides 8 and 16."""

    out_channels = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 8, stride=8)
        self.down = torch.nn.Conv2d(8, 8, 2, stride=2)

    def forward(self, x: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        fine = self.stem(x)
        return OrderedDict([("0", fine), ("1", self.down(fine))])


class TwoStage(torch.nn.Module):
    """Feature maps and boxes of two images to pooled features, through a MultiScaleRoIAlign."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TwoLevelBackbone()
        self.pool = MultiScaleRoIAlign(["0", "1"], output_size=3, sampling_ratio=2)

    def forward(
        self, images: torch.Tensor, boxes0: torch.Tensor, boxes1: torch.Tensor
    ) -> torch.Tensor:
        maps = self.backbone(images)
        # The sizes are fixed because torchvision derives the scales from the first images only.
        return self.pool(maps, [boxes0, boxes1], [(64, 96), (64, 96)])


class ScoredBoxes(torch.nn.Module):
    """A MultiScaleRoIAlign on boxes whose number depends on the values of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.two_stage = TwoStage()

    def forward(
        self, images: torch.Tensor, boxes: torch.Tensor, scores: torch.Tensor
    ) -> torch.Tensor:
        return self.two_stage(images, boxes[scores > 0], boxes[scores < 0])


def tiny_faster_rcnn() -> torch.nn.Module:
    return _with_clear_scores(detection.FasterRCNN(TwoLevelBackbone(), **_options()), 30)


def tiny_mask_rcnn() -> torch.nn.Module:
    """Return a Mask R-CNN with batch norm in its heads, as torchvision's `v2` has."""
    pool = MultiScaleRoIAlign(["0", "1"], output_size=4, sampling_ratio=0)
    norm = torch.nn.BatchNorm2d
    model = detection.MaskRCNN(
        TwoLevelBackbone(),
        box_head=detection.faster_rcnn.FastRCNNConvFCHead((8, 7, 7), [8], [1024], norm),
        mask_head=detection.mask_rcnn.MaskRCNNHeads(8, [256], 1, norm),
        mask_roi_pool=pool,
        **_options(),
    )
    return _with_clear_scores(model, 30)


def tiny_keypoint_rcnn() -> torch.nn.Module:
    pool = MultiScaleRoIAlign(["0", "1"], output_size=4, sampling_ratio=0)
    options = {**_options(), "num_classes": 2}
    model = detection.KeypointRCNN(
        TwoLevelBackbone(), num_keypoints=3, keypoint_roi_pool=pool, **options
    )
    return _with_clear_scores(model, 30)


def tiny_mask_and_keypoint_rcnn() -> torch.nn.Module:
    """Return a detector with all the heads that torchvision knows, to be exported once for all."""
    model, other = tiny_mask_rcnn(), tiny_keypoint_rcnn()
    for part in ("keypoint_head", "keypoint_predictor"):
        setattr(model.roi_heads, part, getattr(other.roi_heads, part))
    # Unlike the masks' pooler: exporters make one node of two that are alike.
    pool = MultiScaleRoIAlign(["0", "1"], output_size=5, sampling_ratio=1)
    model.roi_heads.keypoint_roi_pool = pool
    return model


def mobilenet_faster_rcnn(image: torch.Tensor) -> torch.nn.Module:
    """Return torchvision's smallest Faster R-CNN, with batch norm fitted to an image.

    Random weights without that give features that vanish on the way.
    """
    torch.manual_seed(20)
    model = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=5, min_size=96, max_size=160
    )
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    model.train()
    with torch.no_grad():
        model.backbone(model.transform([image])[0].tensors)
    return _with_clear_scores(model, 10)


def _options() -> dict[str, object]:
    torch.manual_seed(10)
    anchors = detection.anchor_utils.AnchorGenerator(((16,), (32,)), ((0.5, 1.0),) * 2)
    return {
        "num_classes": 4,
        "min_size": 64,
        "max_size": 96,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
        "rpn_anchor_generator": anchors,
        "box_roi_pool": MultiScaleRoIAlign(["0", "1"], output_size=7, sampling_ratio=2),
        "rpn_pre_nms_top_n_test": 40,
        "rpn_post_nms_top_n_test": 20,
        "box_detections_per_img": 12,
    }


def _with_clear_scores(model: torch.nn.Module, factor: float) -> torch.nn.Module:
    """Spread the class scores of random weights, so that many detections pass and few tie.

    A larger factor than needed brings ties back, at a score of 1.
    """
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(factor)
    return model.eval()
