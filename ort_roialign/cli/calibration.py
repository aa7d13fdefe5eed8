"""Makes a detector with random weights behave like one that found something.

Fresh weights give every proposal the same score and no detection at all, and a comparison of two
empty results says nothing. The statistics of a real photograph fix that: each layer that decides
is scaled so that what it decides spreads as it does in a trained detector. The boxes still mean
nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import Bottleneck

# Standard deviation that each layer's outputs get over the photograph. Trained detectors have
# logits of a few units; the box deltas move a proposal by about a tenth of its size.
OBJECTNESS_STD = 2.0
PROPOSAL_DELTA_STD = 0.2
CLASS_LOGIT_STD = 2.5
BOX_DELTA_STD = 1.0
MASK_LOGIT_STD = 2.0
# What a residual block adds to its input. At random weights and 1, a deep network multiplies a last
# digit of the input by some hundreds; training, and torchvision's `zero_init_residual`, avoid that.
RESIDUAL_SCALE = 0.2
# A coarser level has fewer anchors, so fewer extreme scores; without this growth from level to
# level nearly all proposals would be small ones of the finest level.
LEVEL_STD_GROWTH = 1.2
# Mask statistics need only some of the proposals.
MASK_PROPOSALS = 50


@torch.no_grad()
def calibrate_random_detector(model: Any, image: torch.Tensor) -> None:
    """Scale the random weights of a torchvision R-CNN with a feature pyramid, in place.

    Args:
        model: `FasterRCNN` or `MaskRCNN`, built without weights; left in evaluation mode.
        image: [3, height, width], float32, 0 to 1.
    """
    model.eval()
    images, _ = model.transform([image])
    _weaken_residual_branches(model.backbone.body)
    _set_batch_norm_statistics(model.backbone.body, images.tensors)
    features = _spread_levels(model.backbone, images.tensors)
    proposals = _spread_proposals(model.rpn, images, features)
    _spread_classes(model.roi_heads, features, proposals, images.image_sizes)
    if model.roi_heads.has_mask():
        _spread_masks(model.roi_heads, features, proposals, images.image_sizes)


def _weaken_residual_branches(body: nn.Module) -> None:
    for block in body.modules():
        if isinstance(block, Bottleneck):
            nn.init.constant_(block.bn3.weight, RESIDUAL_SCALE)
        elif isinstance(block, InvertedResidual) and block.use_res_connect:
            last_norm: Any = block.block[-1][1]
            nn.init.constant_(last_norm.weight, RESIDUAL_SCALE)


def _set_batch_norm_statistics(body: nn.Module, images: torch.Tensor) -> None:
    norms = [m for m in body.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average, not a moving one that starts at 0 and 1
    body.train()
    body(images)
    body.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _spread_levels(backbone: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Spread the feature pyramid's levels; return their maps."""
    inner = backbone.body(images)
    maps = list(backbone.fpn(inner).values())
    for level, block in enumerate(backbone.fpn.layer_blocks):
        factor = LEVEL_STD_GROWTH**level / maps[level].std()
        for parameter in block.parameters():
            parameter.mul_(factor)
    features: dict[str, torch.Tensor] = backbone.fpn(inner)
    return features


def _spread_proposals(rpn: Any, images: ImageList, features: dict[str, torch.Tensor]) -> Any:
    """Spread the proposal network's outputs; return the proposals of the image."""
    objectness, deltas = rpn.head(list(features.values()))
    _spread(rpn.head.cls_logits, _over_levels(objectness), OBJECTNESS_STD)
    _spread(rpn.head.bbox_pred, _over_levels(deltas), PROPOSAL_DELTA_STD)
    proposals, _ = rpn(images, features)
    return proposals


def _over_levels(maps: list[torch.Tensor]) -> torch.Tensor:
    """Return [samples, channels] of the maps [N, channels, H, W] of all levels."""
    return torch.cat([m.movedim(1, -1).flatten(0, -2) for m in maps])


def _spread_classes(heads: Any, features: Any, proposals: Any, sizes: Any) -> None:
    pooled = heads.box_roi_pool(features, proposals, sizes)
    logits, deltas = heads.box_predictor(heads.box_head(pooled))
    _spread(heads.box_predictor.cls_score, logits, CLASS_LOGIT_STD)
    _spread(heads.box_predictor.bbox_pred, deltas, BOX_DELTA_STD)


def _spread_masks(heads: Any, features: Any, proposals: Any, sizes: Any) -> None:
    some = [boxes[:MASK_PROPOSALS] for boxes in proposals]
    logits = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, some, sizes)))
    _spread(heads.mask_predictor.mask_fcn_logits, _over_levels([logits]), MASK_LOGIT_STD)


def _spread(layer: Any, outputs: torch.Tensor, std: float) -> None:
    """Give each output channel of a linear or 1x1 convolution the mean 0 and the deviation `std`.

    Args:
        layer: the layer, changed in place.
        outputs: [samples, channels], what the layer gives now.
        std: the standard deviation wanted.
    """
    factor = std / outputs.std(dim=0)
    layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.dim() - 1)))
    layer.bias.sub_(outputs.mean(dim=0)).mul_(factor)
