"""RoiPoolGrad against torchvision's autograd, the reference and hand-made cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerances
from numpy.testing import assert_allclose, assert_array_equal
from peers import torchvision_roi_pool_grad
from plugin import ELEMENT_TYPES, Device, random_inputs, run

from ort_roialign.reference import roi_pool_grad

SCALE = 0.3
BINS = {"output_height": 3, "output_width": 4, "spatial_scale": SCALE}


def run_grad(device: Device, inputs: Any, threads: int | None = None, **attributes: Any) -> Any:
    (dx,) = run(device, "RoiPoolGrad", inputs, threads=threads, **attributes)
    return dx


def random_gradient_inputs(rng: np.random.Generator, type_name: str, **sizes: Any) -> Any:
    inputs = random_inputs(rng, type_name, **({"spatial_scale": SCALE} | sizes))
    shape = (len(inputs["rois"]), inputs["X"].shape[1], 3, 4)
    return {"dY": rng.standard_normal(shape).astype(inputs["X"].dtype), **inputs}


@pytest.mark.parametrize("channels", [1, 4, 5, 17])
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_equals_the_reference(device, rng, type_name, channels):
    inputs = random_gradient_inputs(rng, type_name, channels=channels)
    expected = roi_pool_grad(**{name.lower(): a for name, a in inputs.items()}, **BINS)
    assert np.abs(expected).max() > 0.1
    assert_allclose(run_grad(device, inputs, **BINS), expected, *tolerances.GRADIENT[type_name])


@pytest.mark.parametrize("type_name", ["float32", "float64"])
def test_equals_torchvisions_autograd(device, rng, type_name):
    inputs = random_gradient_inputs(rng, type_name, num_rois=30)
    expected = torchvision_roi_pool_grad(inputs, **BINS)
    assert_allclose(run_grad(device, inputs, **BINS), expected, *tolerances.GRADIENT[type_name])


def test_bins_that_share_a_winner_derived_by_hand(device):
    # Cells 0-1, 1-3 and 3-4 of the row are the bins: cell 3 wins in two of them, cell 1 in one.
    inputs = {
        "dY": np.array([0.5, 1, 2]).reshape(1, 1, 1, 3),
        "X": np.array([1, 2, 4, 8, 3.0]).reshape(1, 1, 1, 5),
        "rois": np.array([[0, 0, 4, 0.0]]),
        "batch_indices": np.array([0]),
    }
    assert_array_equal(run_grad(device, inputs, output_width=3), [[[[0, 0.5, 0, 3, 0]]]])


def test_first_of_equal_cells_takes_the_gradient_and_empty_bins_send_none(device):
    inputs = {
        "dY": np.array([2.0, 4]).reshape(2, 1, 1, 1),
        "X": np.full((1, 1, 3, 4), -1.5),
        "rois": np.array([[1, 1, 3, 2], [20, 20, 25, 25.0]]),
        "batch_indices": np.array([0, 0]),
    }
    expected = np.zeros((1, 1, 3, 4))
    expected[0, 0, 1, 1] = 2
    assert_array_equal(run_grad(device, inputs), expected)


@pytest.mark.parametrize("num_images", [0, 2])
def test_no_rois_give_exact_zeros(device, rng, num_images):
    inputs = random_gradient_inputs(rng, "float32", num_images=2, num_rois=0)
    inputs["X"] = inputs["X"][:num_images]
    dx = run_grad(device, inputs, **BINS)
    assert dx.shape == (num_images, 3, 9, 13)
    assert not dx.any()


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_threads_do_not_change_a_bit(device, rng, type_name):
    inputs = random_gradient_inputs(rng, type_name, channels=35, num_rois=30)
    results = [run_grad(device, inputs, threads=threads, **BINS).tobytes() for threads in (1, 2, 3)]
    assert results[0] == results[1] == results[2]
