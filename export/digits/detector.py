"""A small two-stage detector with a feature pyramid and a mask head: torchvision's classes.

The backbone is small enough to train on two CPU cores in minutes; all the rest is torchvision's
Mask R-CNN (`MaskRCNN` is its `FasterRCNN` with a mask head), with this package's pooling.
"""

from collections import OrderedDict
from collections.abc import Callable

from composites import CLASS_NAMES, IMAGE_HEIGHT, IMAGE_WIDTH
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork

from ort_roialign.torch import MultiScaleRoIAlign

MAPS = ("stride 4", "stride 8", "stride 16", "stride 32")
STRIDES = (4, 8, 16, 32)
WIDTHS = (32, 48, 64, 96)  # channels of each stage
BLOCKS = (2, 2, 2, 1)  # of each stage
PYRAMID_CHANNELS = 48
HEAD_FEATURES = 192
BOX_BINS, MASK_BINS = 7, 14
# A box is pooled from the map of stride 8 if the root of its area is 40 to 80 pixels (a digit is
# then some 50 to 100 high), and from stride 4 if it is smaller.
CANONICAL_SCALE, CANONICAL_LEVEL = 40, 3
# Sides of square anchors in pixels, on each map; a digit is higher than it is wide.
ANCHOR_SIDES = ((8, 12), (17, 24), (34, 48), (68, 90))
ANCHOR_RATIOS = (1.6,)
SCORE_THRESHOLD = 0.05
IMAGE_MEAN, IMAGE_STD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)

# bins of a side -> the pooler of a head, called as torchvision calls its `MultiScaleRoIAlign`.
PoolerOf = Callable[[int], nn.Module]


def align_pooler(bins: int, samples: int = 2, mode: str = "avg") -> nn.Module:
    """Pool by RoIAlign on the pyramid; the defaults are Mask R-CNN's.

    Args:
        bins: bins of a side.
        samples: per bin and axis; 0 is adaptive.
        mode: "avg" or "max".
    """
    return MultiScaleRoIAlign(
        MAPS,
        bins,
        samples,
        canonical_scale=CANONICAL_SCALE,
        canonical_level=CANONICAL_LEVEL,
        mode=mode,
    )


class _Block(nn.Module):
    """Two 3x3 convolutions around which the input is added, after ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.convolutions(x) + self.shortcut(x))


class SmallBackbone(nn.Module):
    """Four stages, each half as fine as the one before, and the pyramid over them.

    Takes images [N, 3, H, W] and returns maps [N, 48, H / stride, W / stride], by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.out_channels = PYRAMID_CHANNELS
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True)
        )
        inputs = (24, *WIDTHS[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(_Block(i, o, stride=2), *(_Block(o, o, stride=1) for _ in range(1, n)))
            for i, o, n in zip(inputs, WIDTHS, BLOCKS, strict=True)
        )
        self.pyramid = FeaturePyramidNetwork(list(WIDTHS), PYRAMID_CHANNELS)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        x = self.stem(images)
        maps = OrderedDict()
        for name, stage in zip(MAPS, self.stages, strict=True):
            x = maps[name] = stage(x)
        pyramid: OrderedDict[str, Tensor] = self.pyramid(maps)
        return pyramid


class _UnresizedTransform(GeneralizedRCNNTransform):
    """Leaves images at their size: digits are as many pixels high as they are."""

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


def build_detector(pooler_of: PoolerOf = align_pooler) -> MaskRCNN:
    """Build the detector with random weights.

    Args:
        pooler_of: makes the poolers of the box head and of the mask head.
    """
    num_classes = len(CLASS_NAMES) + 1  # and the background
    detector = MaskRCNN(
        SmallBackbone(),
        rpn_anchor_generator=AnchorGenerator(ANCHOR_SIDES, (ANCHOR_RATIOS,) * len(ANCHOR_SIDES)),
        rpn_pre_nms_top_n_train=500,
        rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_train=200,
        rpn_post_nms_top_n_test=100,
        rpn_batch_size_per_image=128,
        box_roi_pool=pooler_of(BOX_BINS),
        # Digits differ in their shape, which convolutions see before the bins are mixed.
        box_head=FastRCNNConvFCHead(
            (PYRAMID_CHANNELS, BOX_BINS, BOX_BINS),
            [PYRAMID_CHANNELS] * 2,
            [HEAD_FEATURES],
            nn.BatchNorm2d,
        ),
        box_predictor=FastRCNNPredictor(HEAD_FEATURES, num_classes),
        box_score_thresh=SCORE_THRESHOLD,
        box_detections_per_img=50,
        box_batch_size_per_image=64,
        box_positive_fraction=0.5,  # which digit it is is harder than that it is one
        mask_roi_pool=pooler_of(MASK_BINS),
        mask_head=MaskRCNNHeads(PYRAMID_CHANNELS, (PYRAMID_CHANNELS,) * 2, 1),
        mask_predictor=MaskRCNNPredictor(PYRAMID_CHANNELS, PYRAMID_CHANNELS, num_classes),
    )
    detector.transform = _UnresizedTransform(
        IMAGE_HEIGHT, IMAGE_WIDTH, list(IMAGE_MEAN), list(IMAGE_STD)
    )
    return detector
