"""The CUDA kernels' source, run on the host in both thread orders, against the CPU's kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerances
from numpy.testing import assert_allclose, assert_array_equal
from plugin import ELEMENT_TYPES, Device, random_inputs, run

# The others are compared with the reference, on this device too, in tests/ops/test_family.py.
CASES = [
    ("RoiAlign", {"mode": "avg"}),
    ("RoiAlign", {"mode": "max"}),
    ("RoiAlign", {"mode": "avg", "coordinate_transformation_mode": "output_half_pixel"}),
    ("RoiAlign", {"mode": "max", "sampling_ratio": 3}),
    ("RoiPool", {}),
    ("RoiAlignGrad", {"mode": "avg"}),
    ("RoiAlignGrad", {"mode": "max"}),
    ("RoiAlignGrad", {"mode": "avg", "sampling_ratio": 1}),
    ("RoiAlignGrad", {"mode": "max", "coordinate_transformation_mode": "output_half_pixel"}),
    ("RoiPoolGrad", {}),
]
SIZE = {"output_height": 3, "output_width": 4}

# Boxes that are degenerate, mirrored, outside, huge.
ODD_BOXES = [
    *([2, 1, 2, 4], [4, 1, 2, 3], [4, 3, 1, 1], [3, 3, 3, 3], [12, 8, 0, 0]),
    *([-9, -9, -2, -2], [40, 0, 50, 5], [-4, -3, 3, 2], [11, 7, 20, 15], [-1, -1, 13, 9]),
    *([-1e9, -1e9, 1e9, 1e9], [0, 0, 1e9, 3], [-3e4, 2, 5, 4], [0, 0, 13, 9]),
]


def gradient_of(operator: str, rng: np.random.Generator, inputs: Any) -> Any:
    """The inputs with dY in front where the operator takes one."""
    if not operator.endswith("Grad"):
        return inputs
    shape = (len(inputs["rois"]), inputs["X"].shape[1], 3, 4)
    return {"dY": rng.standard_normal(shape).astype(inputs["X"].dtype), **inputs}


def check_equal(
    cpu: Device, cuda: Device, type_name: str, operator: str, inputs: Any, **attributes: Any
) -> None:
    results = [run(device, operator, inputs, **SIZE, **attributes) for device in (cpu, cuda)]
    table = tolerances.GRADIENT if operator.endswith("Grad") else tolerances.KERNEL
    for on_cpu, on_cuda in zip(*results, strict=True):
        if operator == "RoiPool":  # a maximum of cells is not rounded
            assert_array_equal(on_cuda, on_cpu)
        else:
            assert_allclose(on_cuda, on_cpu, *table[type_name])


@pytest.fixture(params=["forward", "reversed"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The order in which a block's threads take turns."""
    monkeypatch.setenv("ORT_ROIALIGN_THREAD_ORDER", request.param)
    chosen: str = request.param
    return chosen


@pytest.mark.parametrize(("operator", "attributes"), CASES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_equals_the_cpu(
    cpu_device, cuda_on_host_device, rng, order, type_name, operator, attributes
):
    # More cells and more RoIs than a block has threads, and channels that fill no group.
    inputs = random_inputs(
        rng, type_name, channels=6, height=11, width=19, num_rois=140, spatial_scale=1.0
    )
    inputs = gradient_of(operator, rng, inputs)
    check_equal(cpu_device, cuda_on_host_device, type_name, operator, inputs, **attributes)


@pytest.mark.parametrize(("operator", "attributes"), CASES)
@pytest.mark.parametrize("type_name", ["float32", "float64"])
def test_equals_the_cpu_on_odd_boxes(
    cpu_device, cuda_on_host_device, rng, order, type_name, operator, attributes
):
    inputs = random_inputs(rng, type_name, num_rois=len(ODD_BOXES))
    inputs["rois"] = np.array(ODD_BOXES).astype(ELEMENT_TYPES[type_name])
    inputs = gradient_of(operator, rng, inputs)
    check_equal(cpu_device, cuda_on_host_device, type_name, operator, inputs, **attributes)


@pytest.mark.parametrize(("operator", "attributes"), CASES)
@pytest.mark.parametrize(
    "sizes",
    [
        {"num_rois": 0},
        {"num_rois": 0, "num_images": 0},
        {"channels": 0},
        {"height": 1, "width": 1, "num_rois": 129},
        {"height": 1, "width": 33},
        {"height": 33, "width": 1},
        {"channels": 1, "height": 8, "width": 16, "num_rois": 128},
    ],
)
def test_equals_the_cpu_on_odd_shapes(
    cpu_device, cuda_on_host_device, rng, operator, attributes, sizes
):
    sizes = dict(sizes)
    num_images = sizes.pop("num_images", 2)
    inputs = random_inputs(rng, "float32", num_images=2, spatial_scale=1.0, **sizes)
    inputs["X"] = inputs["X"][:num_images]
    inputs = gradient_of(operator, rng, inputs)
    check_equal(cpu_device, cuda_on_host_device, "float32", operator, inputs, **attributes)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_equals_the_cpu_on_values_that_are_not_finite(
    cpu_device, cuda_on_host_device, rng, mode, value
):
    inputs = random_inputs(rng, "float32", spatial_scale=1.0)
    inputs["X"][rng.random(inputs["X"].shape) < 0.05] = value
    check_equal(cpu_device, cuda_on_host_device, "float32", "RoiAlign", inputs, mode=mode)
    check_equal(cpu_device, cuda_on_host_device, "float32", "RoiPool", inputs)


@pytest.mark.parametrize(("operator", "attributes"), CASES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_order_of_threads_does_not_change_a_bit(
    cuda_on_host_device, rng, monkeypatch, type_name, operator, attributes
):
    inputs = random_inputs(rng, type_name, channels=5, num_rois=130, spatial_scale=1.0)
    inputs = gradient_of(operator, rng, inputs)
    bits = []
    for order in ("forward", "reversed"):
        monkeypatch.setenv("ORT_ROIALIGN_THREAD_ORDER", order)
        results = run(cuda_on_host_device, operator, inputs, **SIZE, **attributes)
        bits.append([array.tobytes() for array in results])
    assert bits[0] == bits[1]
