"""MultiScaleRoiAlign, MultiScaleRoiAlignRotated and their gradients: RoIAlign on a pyramid of maps.

Each region is pooled from the map of its own level, by the operator on one map: Lin et al.,
"Feature Pyramid Networks", 2017, section 4.2 and equation 1, with the small numbers that
torchvision, detectron2 and mmdet add to the logarithm or to the level.

Letters: `N` images, `C` channels, `R` regions, `L` maps of `H_l W_l` cells, `PH PW` output bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np
import numpy.typing as npt

from ort_roialign.errors import InvalidArgumentError
from ort_roialign.reference._fpn_level import LevelRule, level_of_scale
from ort_roialign.reference._inputs import (
    Float64Array,
    Int64Array,
    check_feature_maps,
    check_finite,
    check_integer,
    check_output_gradient,
    check_region_list,
    check_region_values,
    check_spatial_scale,
    coordinate_type,
    shape_text,
)
from ort_roialign.reference._roi_align import check_attributes, roi_align, roi_align_grad
from ort_roialign.reference._roi_align_rotated import (
    check_turn,
    roi_align_rotated,
    roi_align_rotated_grad,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

MAX_MAPS = 16
LEAST_LEVEL = -1000


class MultiScaleAttributes(TypedDict, total=False):
    """The attributes of MultiScaleRoiAlign; all but `spatial_scales` have a default.

    The level of a box with the sides `w` and `h` in image pixels is
    `floor(canonical_level + log2(sqrt(w * h) / canonical_scale + log_epsilon) + level_epsilon)`,
    at least `min_level` and at most `max_level`, in float32 with the logarithm rounded from
    float64. Its map is number `level - min_level`. A box without area takes the first map.
    """

    mode: str  # "avg" or "max" of a bin's samples ("avg")
    output_height: int  # bins PH (1)
    output_width: int  # bins PW (1)
    sampling_ratio: int  # samples per bin and axis; 0 takes one per feature cell (0)
    coordinate_transformation_mode: str  # "half_pixel" or "output_half_pixel" ("half_pixel")
    spatial_scales: Sequence[float]  # [L]: feature cells per image pixel, the finest map first
    canonical_scale: float  # side of a square box of `canonical_level`, in image pixels (224)
    canonical_level: int  # (4)
    min_level: int | None  # of the first map (-log2 of the first scale, rounded)
    max_level: int | None  # of the last map in use (min_level and the scales' levels apart)
    log_epsilon: float  # added before the logarithm (0)
    level_epsilon: float  # added to the level before it is rounded down (1e-6)


class MultiScaleRotatedAttributes(MultiScaleAttributes, total=False):
    """The attributes of MultiScaleRoiAlignRotated."""

    angle_unit: str  # "radians" or "degrees" ("radians")
    clockwise: int  # 1: a positive angle turns a box clockwise (0)


def multi_scale_roi_align(
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *maps: npt.ArrayLike,
    **attributes: Unpack[MultiScaleAttributes],
) -> Float64Array:
    """Pools each region, as `roi_align` does, from the map that its size says.

    Args:
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels.
        batch_indices: integers [R], the image of each box, in [0, N).
        *maps: feature maps [N, C, H_l, W_l], the finest first, at most 16; all of one type, which
            may be float16, bfloat16, float32 or float64.
        **attributes: those of `MultiScaleAttributes`.

    Returns:
        The pooled regions, float64 [R, C, PH, PW].

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Lin et al., "Feature Pyramid Networks", 2017, equation 1; torchvision's MultiScaleRoIAlign.
    """
    pyramid = _check("MultiScaleRoiAlign", rois, batch_indices, maps, _Attributes(**attributes))
    return _pool(roi_align, pyramid)


def multi_scale_roi_align_grad(
    dy: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *maps: npt.ArrayLike,
    **attributes: Unpack[MultiScaleAttributes],
) -> list[Float64Array]:
    """Gradients of a loss for the maps of `multi_scale_roi_align`, from the one for its output.

    Args:
        dy: gradient for the output, [R, C, PH, PW].
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels.
        batch_indices: integers [R], the image of each box, in [0, N).
        *maps: feature maps [N, C, H_l, W_l].
        **attributes: those of `MultiScaleAttributes`.

    Returns:
        The gradient for each map, float64 [N, C, H_l, W_l].

    Raises:
        InvalidArgumentError: as the forward operator, or `dy` does not have the output's shape.

    Source:
        The transpose of Lin et al., "Feature Pyramid Networks", 2017, section 4.2.
    """
    operator = "MultiScaleRoiAlignGrad"
    pyramid = _check(operator, rois, batch_indices, maps, _Attributes(**attributes))
    dy_checked = check_output_gradient(operator, dy, pyramid.output_shape)
    return _pool_grad(roi_align_grad, dy_checked, pyramid)


def multi_scale_roi_align_rotated(
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *maps: npt.ArrayLike,
    **attributes: Unpack[MultiScaleRotatedAttributes],
) -> Float64Array:
    """Pools each region, as `roi_align_rotated` does, from the map that its size says.

    Args:
        rois: boxes [R, 5] as centre x, centre y, width and height in image pixels, and an angle.
        batch_indices: integers [R], the image of each box, in [0, N).
        *maps: feature maps [N, C, H_l, W_l], as in `multi_scale_roi_align`.
        **attributes: those of `MultiScaleRotatedAttributes`.

    Returns:
        The pooled regions, float64 [R, C, PH, PW].

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Lin et al., "Feature Pyramid Networks", 2017, equation 1; detectron2's ROIPooler.
    """
    operator = "MultiScaleRoiAlignRotated"
    pyramid = _check(operator, rois, batch_indices, maps, _RotatedAttributes(**attributes))
    return _pool(roi_align_rotated, pyramid)


def multi_scale_roi_align_rotated_grad(
    dy: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *maps: npt.ArrayLike,
    **attributes: Unpack[MultiScaleRotatedAttributes],
) -> list[Float64Array]:
    """Gradients of a loss for the maps of `multi_scale_roi_align_rotated`.

    Args:
        dy: gradient for the output, [R, C, PH, PW].
        rois: boxes [R, 5] as centre x, centre y, width and height in image pixels, and an angle.
        batch_indices: integers [R], the image of each box, in [0, N).
        *maps: feature maps [N, C, H_l, W_l].
        **attributes: those of `MultiScaleRotatedAttributes`.

    Returns:
        The gradient for each map, float64 [N, C, H_l, W_l].

    Raises:
        InvalidArgumentError: as the forward operator, or `dy` does not have the output's shape.

    Source:
        The transpose of Lin et al., "Feature Pyramid Networks", 2017, section 4.2.
    """
    operator = "MultiScaleRoiAlignRotatedGrad"
    pyramid = _check(operator, rois, batch_indices, maps, _RotatedAttributes(**attributes))
    dy_checked = check_output_gradient(operator, dy, pyramid.output_shape)
    return _pool_grad(roi_align_rotated_grad, dy_checked, pyramid)


@dataclass(frozen=True)
class _Attributes:
    """`MultiScaleAttributes` with the defaults filled in."""

    mode: str = "avg"
    output_height: int = 1
    output_width: int = 1
    sampling_ratio: int = 0
    coordinate_transformation_mode: str = "half_pixel"
    spatial_scales: Sequence[float] = ()
    canonical_scale: float = 224.0
    canonical_level: int = 4
    min_level: int | None = None
    max_level: int | None = None
    log_epsilon: float = 0.0
    level_epsilon: float = 1e-6

    # Those that the operator on one map has, too.
    of_one_map: ClassVar[tuple[str, ...]] = (
        "mode",
        "output_height",
        "output_width",
        "sampling_ratio",
        "coordinate_transformation_mode",
    )


@dataclass(frozen=True)
class _RotatedAttributes(_Attributes):
    """`MultiScaleRotatedAttributes` with the defaults filled in."""

    angle_unit: str = "radians"
    clockwise: int = 0

    of_one_map: ClassVar[tuple[str, ...]] = (*_Attributes.of_one_map, "angle_unit", "clockwise")


@dataclass(frozen=True)
class _Pyramid:
    """One checked call."""

    boxes: npt.NDArray[Any]  # [R, 4] or [R, 5], of the type that was given
    batch_indices: npt.NDArray[Any]  # [R]
    maps: list[npt.NDArray[Any]]  # [L], each [N, C, H_l, W_l], of the type that was given
    map_numbers: Int64Array  # [R]: which map each region is pooled from
    spatial_scales: list[np.float32]  # [L]
    attributes: _Attributes

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        num_rois, channels = len(self.boxes), self.maps[0].shape[1]
        return num_rois, channels, self.attributes.output_height, self.attributes.output_width

    def parts(self) -> Iterator[tuple[Int64Array, tuple[npt.NDArray[Any], ...], dict[str, Any]]]:
        """For each map: numbers of its regions; inputs and attributes of the single-map call."""
        shared = {name: getattr(self.attributes, name) for name in self.attributes.of_one_map}
        for number, (x, scale) in enumerate(zip(self.maps, self.spatial_scales, strict=True)):
            regions = np.flatnonzero(self.map_numbers == number)
            inputs = (x, self.boxes[regions], self.batch_indices[regions])
            yield regions, inputs, {**shared, "spatial_scale": scale}


def _pool(operator: Callable[..., Float64Array], pyramid: _Pyramid) -> Float64Array:
    y = np.zeros(pyramid.output_shape)
    for regions, inputs, attributes in pyramid.parts():
        y[regions] = operator(*inputs, **attributes)
    return y


def _pool_grad(
    operator: Callable[..., Float64Array], dy: Float64Array, pyramid: _Pyramid
) -> list[Float64Array]:
    return [
        operator(dy[regions], *inputs, **attributes)
        for regions, inputs, attributes in pyramid.parts()
    ]


def _check(
    operator: str,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    maps: Sequence[npt.ArrayLike],
    attributes: _Attributes,
) -> _Pyramid:
    output_size = (attributes.output_height, attributes.output_width)
    sampling = (attributes.sampling_ratio, 1.0, attributes.coordinate_transformation_mode)
    check_attributes(operator, attributes.mode, output_size, sampling)
    rois_columns = 4
    if isinstance(attributes, _RotatedAttributes):
        rois_columns = 5
        check_turn(operator, attributes.angle_unit, attributes.clockwise)
    scales = _check_spatial_scales(operator, attributes.spatial_scales)
    rule = _check_level_rule(operator, attributes, scales)

    boxes, indices = check_region_list(operator, rois, batch_indices, rois_columns)
    pyramid_maps = _check_maps(operator, maps, len(scales), num_rois=len(boxes))
    check_region_values(operator, boxes, indices, num_images=pyramid_maps[0].shape[0])
    boxes_image = boxes.astype(coordinate_type(pyramid_maps[0].dtype))
    with np.errstate(over="ignore"):
        sides = boxes_image[:, 2:4] - (boxes_image[:, :2] if rois_columns == 4 else 0)
        map_numbers = [rule.map_number(*size) for size in sides.astype(np.float32)]
    numbers = np.array(map_numbers, np.int64)
    return _Pyramid(boxes, indices, pyramid_maps, numbers, scales, attributes)


def _check_spatial_scales(operator: str, spatial_scales: Sequence[float]) -> list[np.float32]:
    if not 1 <= len(spatial_scales) <= MAX_MAPS:
        raise InvalidArgumentError(
            f"{operator}: attribute spatial_scales must have one number for each map, "
            f"1 to {MAX_MAPS} in all; got {len(spatial_scales)}"
        )
    return [check_spatial_scale(operator, scale, "spatial_scales") for scale in spatial_scales]


def _check_maps(
    operator: str, maps: Sequence[npt.ArrayLike], num_maps: int, num_rois: int
) -> list[npt.NDArray[Any]]:
    if len(maps) != num_maps:
        raise InvalidArgumentError(
            f"{operator}: X must be as many maps as attribute spatial_scales has numbers, "
            f"{num_maps}; got {len(maps)}"
        )
    checked: list[npt.NDArray[Any]] = []
    for number, x in enumerate(maps):
        name = f"X[{number}]"
        feature_map = check_feature_maps(operator, name, x, num_rois)
        first = checked[0] if checked else feature_map
        if feature_map.shape[:2] != first.shape[:2]:
            raise InvalidArgumentError(
                f"{operator}: {name} must have as many images and channels as X[0], which has "
                f"shape {shape_text(first.shape)}; got {shape_text(feature_map.shape)}"
            )
        if feature_map.dtype != first.dtype:
            raise InvalidArgumentError(
                f"{operator}: {name} must be of type {first.dtype.name}, as X[0]; "
                f"got {feature_map.dtype.name}"
            )
        checked.append(feature_map)
    return checked


def _check_level_rule(
    operator: str, attributes: _Attributes, spatial_scales: list[np.float32]
) -> LevelRule:
    canonical_scale = check_finite(operator, "canonical_scale", attributes.canonical_scale)
    if canonical_scale <= 0:
        raise InvalidArgumentError(
            f"{operator}: attribute canonical_scale must be greater than 0; "
            f"got {float(canonical_scale):g}"
        )
    check_integer(operator, "canonical_level", attributes.canonical_level, least=LEAST_LEVEL)
    first, last = level_of_scale(spatial_scales[0]), level_of_scale(spatial_scales[-1])
    min_level = first if attributes.min_level is None else attributes.min_level
    derived = min_level + last - first
    max_level = derived if attributes.max_level is None else attributes.max_level
    for name, level in (("min_level", min_level), ("max_level", max_level)):
        check_integer(operator, name, level, least=LEAST_LEVEL)
    rule = LevelRule(
        canonical_scale,
        np.float32(attributes.canonical_level),
        check_finite(operator, "log_epsilon", attributes.log_epsilon),
        check_finite(operator, "level_epsilon", attributes.level_epsilon),
        min_level,
        max_level,
    )
    most = min_level + len(spatial_scales) - 1
    if not min_level <= max_level <= most:
        finest_first = " from the scales, which must be those of maps, finest first"
        raise InvalidArgumentError(
            f"{operator}: attribute max_level must be in [min_level, min_level + "
            f"{len(spatial_scales)} maps - 1] = [{min_level}, {most}]; got {max_level}"
            + (finest_first if attributes.max_level is None else "")
        )
    return rule
