"""RoiAlignGrad against the reference, torchvision's autograd, and what makes it a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerances
from numpy.testing import assert_allclose, assert_array_equal
from peers import torchvision_roi_align_grad
from plugin import ELEMENT_TYPES, Device, random_inputs, run

from ort_roialign.reference import roi_align_grad

MODES = ("avg", "max")
TRANSFORMATIONS = ("half_pixel", "output_half_pixel")
SCALE = 0.3


def bins_3_by_4(**attributes: Any) -> dict[str, Any]:
    return {"output_height": 3, "output_width": 4, "spatial_scale": SCALE, **attributes}


def run_grad(device: Device, inputs: Any, threads: int | None = None, **attributes: Any) -> Any:
    (dx,) = run(device, "RoiAlignGrad", inputs, threads=threads, **attributes)
    return dx


def with_gradient(rng: np.random.Generator, inputs: Any, height: int, width: int) -> Any:
    """The inputs with a random dY of the type of X in front."""
    x = inputs["X"]
    shape = (len(inputs["rois"]), x.shape[1], height, width)
    return {"dY": rng.standard_normal(shape).astype(x.dtype), **inputs}


def one_box(x: Any, box: Any, dy: Any) -> Any:
    """A call with one box on one image, all of the type of `x`."""
    return {
        "dY": np.asarray(dy, x.dtype),
        "X": x,
        "rois": np.array([box], x.dtype),
        "batch_indices": np.array([0]),
    }


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_equals_the_reference(device, rng, type_name, mode, transformation, sampling_ratio):
    inputs = with_gradient(rng, random_inputs(rng, type_name, spatial_scale=SCALE), 3, 4)
    attributes = bins_3_by_4(
        mode=mode,
        sampling_ratio=sampling_ratio,
        coordinate_transformation_mode=transformation,
    )
    dx = run_grad(device, inputs, **attributes)
    assert np.abs(dx.astype(np.float64)).max() > 0.1
    expected = roi_align_grad(**{name.lower(): a for name, a in inputs.items()}, **attributes)
    assert_allclose(dx, expected, *tolerances.GRADIENT[type_name])


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("type_name", ["float32", "float64"])
def test_average_equals_torchvisions_autograd(
    device, rng, type_name, transformation, sampling_ratio
):
    inputs = random_inputs(rng, type_name, num_rois=20, spatial_scale=SCALE)
    inputs = with_gradient(rng, inputs, 3, 4)
    attributes = bins_3_by_4(
        sampling_ratio=sampling_ratio, coordinate_transformation_mode=transformation
    )
    expected = torchvision_roi_align_grad(inputs, **attributes)
    dx = run_grad(device, inputs, **attributes)
    assert_allclose(dx, expected, *tolerances.GRADIENT[type_name])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", ["float16", "bfloat16"])
def test_float32_boxes_beside_half_maps(device, rng, type_name, mode):
    attributes = bins_3_by_4(mode=mode) | {"spatial_scale": 1 / 256}
    inputs = random_inputs(rng, type_name, rois_type="float32", spatial_scale=1 / 256)
    inputs = with_gradient(rng, inputs, 3, 4)
    expected = roi_align_grad(**{name.lower(): a for name, a in inputs.items()}, **attributes)
    dx = run_grad(device, inputs, **attributes)
    assert_allclose(dx, expected, *tolerances.GRADIENT[type_name])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 15, 16, 17, 33])
@pytest.mark.parametrize("mode", MODES)
def test_number_of_channels(device, rng, mode, channels):
    inputs = random_inputs(rng, "float32", channels=channels, num_rois=5, spatial_scale=SCALE)
    inputs = with_gradient(rng, inputs, 3, 4)
    attributes = bins_3_by_4(mode=mode)
    expected = roi_align_grad(**{name.lower(): a for name, a in inputs.items()}, **attributes)
    dx = run_grad(device, inputs, **attributes)
    assert_allclose(dx, expected, *tolerances.GRADIENT["float32"])


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_two_by_two_map_derived_by_hand(device, type_name):
    # Samples at -0.375, -0.125, 0.125 and 0.375, those below 0 clamped: along an axis, cell 1 has
    # the weights 0, 0, 0.125, 0.375, and cell 0 the rest. Halved for two samples a bin and summed
    # over both bins, cell 0 has 1.75 and cell 1 has 0.25.
    x = np.array([[[[1, 2], [3, 4]]]]).astype(ELEMENT_TYPES[type_name])
    inputs = one_box(x, [0, 0, 1, 1], np.ones((1, 1, 2, 2)))
    dx = run_grad(device, inputs, output_height=2, output_width=2, sampling_ratio=2)
    expected = np.array([[[[3.0625, 0.4375], [0.4375, 0.0625]]]])
    if type_name == "bfloat16":
        expected = expected.astype(ELEMENT_TYPES["bfloat16"]).astype(np.float64)
    assert_array_equal(dx, expected)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_average_gradient_is_the_adjoint(device, rng, type_name, sampling_ratio):
    inputs = random_inputs(rng, type_name, spatial_scale=SCALE)
    attributes = bins_3_by_4(sampling_ratio=sampling_ratio)
    (y,) = run(device, "RoiAlign", inputs, **attributes)
    inputs = with_gradient(rng, inputs, 3, 4)
    dx = run_grad(device, inputs, **attributes)
    dy, x, y, dx = (a.astype(np.float64) for a in (inputs["dY"], inputs["X"], y, dx))
    # Relative to the lengths of the vectors: the products are of either sign and may cancel.
    lengths = np.linalg.norm(dy) * np.linalg.norm(y)
    difference = abs((dy * y).sum() - (dx * x).sum())
    assert difference <= tolerances.GRADIENT[type_name].rtol * lengths


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_equals_finite_differences(device, rng, mode, sampling_ratio):
    height, width = 5, 6
    inputs = random_inputs(
        rng, "float64", num_images=1, channels=1, height=height, width=width, num_rois=4
    )
    inputs = with_gradient(rng, inputs, 2, 3)
    attributes = {
        "mode": mode,
        "output_height": 2,
        "output_width": 3,
        "sampling_ratio": sampling_ratio,
        "spatial_scale": 0.25,
    }
    # Image 2k has cell k raised, image 2k + 1 has it lowered. Both modes are linear as long as no
    # maximum changes hands, so the step need not be small.
    step, cells = 2.0**-14, height * width
    nudges = np.stack([np.eye(cells), -np.eye(cells)], axis=1) * step
    nudged = inputs["X"] + nudges.reshape(2 * cells, 1, height, width)
    many = {
        "X": nudged,
        "rois": np.tile(inputs["rois"], (2 * cells, 1)),
        "batch_indices": np.repeat(np.arange(2 * cells), 4),
    }
    (y,) = run(device, "RoiAlign", many, **attributes)
    losses = (y.reshape(2 * cells, 4, 1, 2, 3) * inputs["dY"]).sum(axis=(1, 2, 3, 4))
    expected = (losses[0::2] - losses[1::2]) / (2 * step)
    dx = run_grad(device, inputs, **attributes)
    assert np.abs(dx).max() > 0.1
    # The difference quotient loses the 14 bits of the step, about four digits.
    assert_allclose(dx.ravel(), expected, *tolerances.FINITE_DIFFERENCE)


@pytest.mark.parametrize(
    ("box", "sampling_ratio", "winner"),
    [
        # Samples at 0, 1, 2, 3 on either axis, each on a cell of its own.
        ([0, 0, 4, 4], 0, (1, 2)),
        # In the mirrored box the first sample is the last cell.
        ([4, 4, 0, 0], 4, (3, 3)),
        ([4, 0, 0, 4], 4, (1, 2)),
        ([0, 4, 4, 0], 4, (3, 3)),
    ],
)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_first_of_equal_samples_takes_the_gradient(device, type_name, box, sampling_ratio, winner):
    x = np.full((1, 1, 4, 4), -2).astype(ELEMENT_TYPES[type_name])
    x[0, 0, 1, 2] = x[0, 0, 2, 1] = x[0, 0, 3, 3] = 5
    inputs = one_box(x, box, [[[[0.75]]]])
    dx = run_grad(device, inputs, mode="max", sampling_ratio=sampling_ratio)
    expected = np.zeros((1, 1, 4, 4))
    expected[0, 0, winner[0], winner[1]] = 0.75
    assert_array_equal(dx, expected)


@pytest.mark.parametrize(
    ("box", "winner"),
    # The map's largest value is the 0 in cell (1, 3), as much as the samples outside are worth.
    # Samples are one cell apart from the box's first coordinate on; -1 and 4 are on the map.
    [
        ([0, 0, 5, 5], (1, 3)),  # no sample outside
        ([1, 1, 6, 6], (1, 3)),  # the cell is in the first row, before the first sample outside
        ([1, 0, 6, 5], None),  # the first sample outside ends the row above the cell
        ([0, 1, 5, 6], (1, 3)),  # only the last row is outside
        ([-2, 0, 4, 6], None),  # the first column is outside
        ([0, -2, 5, 4], None),  # the first row is outside
        ([20, 20, 25, 25], None),  # all samples are outside
    ],
)
def test_winner_outside_the_map_gets_nothing(device, box, winner):
    x = np.full((1, 1, 4, 4), -1.0)
    x[0, 0, 1, 3] = 0
    dx = run_grad(device, one_box(x, box, [[[[2.0]]]]), mode="max")
    expected = np.zeros((1, 1, 4, 4))
    if winner:
        expected[0, 0, winner[0], winner[1]] = 2
    assert_array_equal(dx, expected)


def test_maximum_of_negative_values_is_not_the_empty_grids_zero(device, rng):
    x = -1 - np.abs(rng.standard_normal((1, 2, 6, 6)))
    inputs = one_box(x, [1, 1, 5, 5], rng.standard_normal((1, 2, 1, 1)))
    dx = run_grad(device, inputs, mode="max")
    assert_allclose(
        dx.sum(axis=(2, 3)), inputs["dY"][0, :, :, 0].T, *tolerances.GRADIENT["float64"]
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_images", [0, 2])
def test_no_rois_give_exact_zeros(device, rng, mode, num_images):
    inputs = random_inputs(rng, "float32", num_images=2, num_rois=0)
    inputs["X"] = inputs["X"][:num_images]
    dx = run_grad(device, with_gradient(rng, inputs, 3, 4), **bins_3_by_4(mode=mode))
    assert dx.shape == (num_images, 3, 9, 13)
    assert not dx.any()


@pytest.mark.parametrize("mode", MODES)
def test_images_without_rois_get_exact_zeros(device, rng, mode):
    inputs = random_inputs(rng, "float16", num_images=4, spatial_scale=SCALE)
    inputs["batch_indices"] = np.array([1, 3, 3, 1, 1, 3, 1, 3])
    dx = run_grad(device, with_gradient(rng, inputs, 3, 4), **bins_3_by_4(mode=mode))
    assert [bool(dx[image].any()) for image in range(4)] == [False, True, False, True]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", ["float16", "bfloat16"])
def test_half_types_are_summed_in_float32(device, type_name, mode):
    # Adding 1 to 2048 in float16, or to 256 in bfloat16, changes nothing.
    inputs = {
        "dY": np.ones((3000, 1, 1, 1)).astype(ELEMENT_TYPES[type_name]),
        "X": np.ones((1, 1, 1, 1)).astype(ELEMENT_TYPES[type_name]),
        "rois": np.tile(np.array([[0, 0, 1, 1]], np.float32), (3000, 1)),
        "batch_indices": np.zeros(3000, np.int64),
    }
    dx = run_grad(device, inputs, mode=mode)
    assert dx.item() == float(np.array(3000).astype(ELEMENT_TYPES[type_name]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_threads_do_not_change_a_bit(device, rng, type_name, mode):
    inputs = random_inputs(rng, type_name, channels=35, num_rois=30, spatial_scale=SCALE)
    inputs = with_gradient(rng, inputs, 3, 4)
    results = [
        run_grad(device, inputs, threads=threads, **bins_3_by_4(mode=mode)).tobytes()
        for threads in (1, 2, 3)
    ]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_gradients_that_are_not_finite_reach_the_cells_they_belong_to(device, rng, mode, value):
    # Two samples in each bin of 8 cells touch two cells each and leave two between them alone.
    x = rng.standard_normal((1, 3, 16, 16))
    dy = rng.standard_normal((1, 3, 2, 2))
    dy[0, 1, 0, 1] = value
    inputs = one_box(x, [0.25, 0.25, 16.25, 16.25], dy)
    attributes = {"mode": mode, "output_height": 2, "output_width": 2, "sampling_ratio": 2}
    expected = roi_align_grad(**{name.lower(): a for name, a in inputs.items()}, **attributes)
    assert 1 <= np.count_nonzero(~np.isfinite(expected)) <= 16
    dx = run_grad(device, inputs, **attributes)
    assert_allclose(dx, expected, *tolerances.GRADIENT["float64"])
