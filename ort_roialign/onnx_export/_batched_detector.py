"""torchvision's two-stage detectors on a batch of any number of images.

torchvision goes through lists of images, proposals and detections in Python, so that a traced
detector has as many images as the example. Here the same steps are taken for all images at once:
boxes of all images lie behind one another, beside the numbers of their images.

Letters: `N` images, `H W` their height and width, `A` anchors of an image, `B` boxes of all images.

Source: torchvision's `GeneralizedRCNN`, `RegionProposalNetwork` and `RoIHeads`, in evaluation mode.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import roi_heads, transform
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import boxes as box_ops

from ort_roialign.onnx_export._torchscript import is_torchscript_tracing

_MOST_BOXES = 2**31  # of all images
_SMALLEST_DETECTION = 1e-2  # torchvision's limit for the sides of boxes, in pixels


class _Boxes(NamedTuple):
    """Boxes of all images, each image's behind one another."""

    boxes: Tensor  # [B, 4]
    scores: Tensor  # [B]
    labels: Tensor  # [B], or the levels that proposals come from
    images: Tensor  # [B], the images' numbers

    def pick(self, rows: Tensor) -> _Boxes:
        """Return some of them: those of a mask [B], or of some numbers."""
        if rows.dtype == torch.bool:
            (rows,) = torch.where(rows)
        if not is_torchscript_tracing():
            # torch.export checks how large numbers derived from this one can be; without a bound
            # it writes a check that ONNX has no integers for.
            torch._check(rows.shape[0] <= _MOST_BOXES)
            if torch.compiler.is_exporting():
                # Batch normalization in a head asks whether there is any box. The file is the same
                # whatever the answer, and runs without boxes too.
                torch._check(rows.shape[0] > 0)
        return _Boxes(*(each[rows] for each in self))

    def rows(self) -> Tensor:
        """Return the boxes with the images' numbers in front [B, 5], as poolers take them."""
        return torch.cat([self.images[:, None].to(self.boxes), self.boxes], dim=1)


class BatchedDetector(torch.nn.Module):
    """A detector as a function of one tensor of images.

    Args:
        detector: a `GeneralizedRCNN` in evaluation mode.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector
        self.training = False  # the detector's modules keep their own modes

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Detect in all images.

        Args:
            images: [N, 3, H, W], 0 to 1.

        Returns:
            What the detector finds in all images, in the images' order: `boxes` [D, 4], `labels`,
            `scores`, maybe `masks` [D, 1, H, W], or `keypoints` and `keypoints_scores`; and
            `image_indices` [D].
        """
        resize, heads = self.detector.transform, self.detector.roi_heads
        original = (images.shape[2], images.shape[3])
        batch, size = _transformed(resize, images)
        features = self.detector.backbone(batch)
        if isinstance(features, Tensor):
            features = {"0": features}
        proposals = _propose(self.detector.rpn, features, batch, size, images.shape[0])
        found = _detect(heads, features, proposals, size, images.shape[0])
        results = {
            "boxes": transform.resize_boxes(found.boxes, size, original),
            "labels": found.labels,
            "scores": found.scores,
        }
        if heads.has_mask():
            pooled = heads.mask_roi_pool(features, found.rows(), [size])
            logits = heads.mask_predictor(heads.mask_head(pooled))
            (masks,) = roi_heads.maskrcnn_inference(logits, [found.labels])
            results["masks"] = transform.paste_masks_in_image(masks, results["boxes"], original)
        if heads.has_keypoint():
            pooled = heads.keypoint_roi_pool(features, found.rows(), [size])
            logits = heads.keypoint_predictor(heads.keypoint_head(pooled))
            (places,), (scores,) = roi_heads.keypointrcnn_inference(logits, [found.boxes])
            results["keypoints"] = transform.resize_keypoints(places, size, original)
            results["keypoints_scores"] = scores
        return {**results, "image_indices": found.images}


def _transformed(resize: Any, images: Tensor) -> tuple[Tensor, tuple[Any, Any]]:
    """Return the images as the backbone takes them, and their size before they are padded.

    The transform's methods know images of any number of channels, but not batches.
    """
    count, channels = images.shape[0], images.shape[1]
    resized, _ = resize.resize(resize.normalize(images).flatten(0, 1), None)
    padded = resize.batch_images([resized], size_divisible=resize.size_divisible)[0]
    height, width = padded.shape[-2:]
    batch = padded.reshape(count, channels, height, width)
    return batch, (resized.shape[-2], resized.shape[-1])


def _propose(
    rpn: Any, features: dict[str, Tensor], batch: Tensor, size: tuple[Any, Any], count: Any
) -> _Boxes:
    """Return the proposals of all images."""
    maps = list(features.values())
    objectness_of_maps, deltas_of_maps = rpn.head(maps)
    (anchors,) = rpn.anchor_generator(ImageList(batch, [size]), maps)  # of one image, [A, 4]
    per_level = [each[0].numel() for each in objectness_of_maps]
    objectness, deltas = concat_box_prediction_layers(objectness_of_maps, deltas_of_maps)
    decoded = rpn.box_coder.decode_single(deltas.detach(), anchors.repeat(count, 1))
    objectness = objectness.detach().reshape(count, -1)  # [N, A]
    best = rpn._get_top_n_idx(objectness, per_level)  # [N, kept]
    levels = torch.cat([best.new_full((n,), level) for level, n in enumerate(per_level)])
    numbers = torch.arange(count, device=best.device)[:, None].expand_as(best)
    boxes = decoded.reshape(count, -1, 4).gather(1, best[:, :, None].expand(-1, -1, 4))
    found = _Boxes(
        box_ops.clip_boxes_to_image(boxes.reshape(-1, 4), size),
        torch.sigmoid(objectness.gather(1, best)).reshape(-1),
        levels[best.reshape(-1)],
        numbers.reshape(-1),
    )
    found = found.pick(box_ops.remove_small_boxes(found.boxes, rpn.min_size))
    found = found.pick(found.scores >= rpn.score_thresh)
    return _suppressed(found, rpn.nms_thresh, rpn.post_nms_top_n(), count)


def _detect(
    heads: Any, features: dict[str, Tensor], proposals: _Boxes, size: tuple[Any, Any], count: Any
) -> _Boxes:
    """Return the detections of all images, in pixels of the resized images."""
    pooled = heads.box_roi_pool(features, proposals.rows(), [size])
    logits, deltas = heads.box_predictor(heads.box_head(pooled))
    num_classes = logits.shape[-1]
    decoded = heads.box_coder.decode_single(deltas, proposals.boxes)
    boxes = box_ops.clip_boxes_to_image(decoded.reshape(-1, num_classes, 4), size)
    scores = torch.softmax(logits, -1)[:, 1:]  # the first class is the background
    labels = torch.arange(1, num_classes, device=logits.device)
    found = _Boxes(
        boxes[:, 1:].reshape(-1, 4),
        scores.reshape(-1),
        labels[None].expand_as(scores).reshape(-1),
        proposals.images[:, None].expand_as(scores).reshape(-1),
    )
    found = found.pick(found.scores > heads.score_thresh)
    found = found.pick(box_ops.remove_small_boxes(found.boxes, _SMALLEST_DETECTION))
    return _suppressed(found, heads.nms_thresh, heads.detections_per_img, count)


def nms_of_groups(
    boxes: Tensor, scores: Tensor, columns: Tensor, rows: Tensor, overlap: float
) -> Tensor:
    """Suppress boxes [B, 4] per pair of numbers [B], and return the numbers of those that stay.

    As torchvision's `batched_nms`, it moves the groups' boxes apart: in two directions, because
    large offsets cost digits. The added 0 gives the maximum a value when there are no boxes.
    """
    step = torch.cat([boxes.reshape(-1), boxes.new_zeros(1)]).max() + 1
    offsets = torch.stack([columns, rows, columns, rows], dim=1).to(boxes) * step
    kept: Tensor = box_ops.nms(boxes + offsets, scores, overlap)
    return kept


def _suppressed(found: _Boxes, overlap: float, most: int, count: Any) -> _Boxes:
    """Return each image's best boxes after non-maximum suppression of each label, best first."""
    kept = nms_of_groups(found.boxes, found.scores, found.labels, found.images, overlap)
    found = found.pick(kept)
    numbers = torch.arange(count, device=found.images.device)
    belongs = (found.images[:, None] == numbers).to(torch.int64)  # [B, N]
    rank = belongs.cumsum(0).gather(1, found.images[:, None])[:, 0]  # in the image, from 1 on
    found = found.pick(rank <= most)
    # Places are unique, so this keeps the order within an image.
    total = found.images.shape[0]
    places = found.images * total + torch.arange(total, device=found.images.device)
    return found.pick(torch.topk(places, total, largest=False).indices)
