"""PasteMasks from PyTorch through both exporters, and in standard operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tolerances
import torch
from exported_files import attributes, random_boxes, roi_nodes
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper
from running import RUNS, run_without_plugin
from torch import Tensor

from ort_roialign import reference
from ort_roialign.errors import ExportError, InvalidArgumentError
from ort_roialign.onnx_export import add_fallback, export, fallback_function
from ort_roialign.torch import paste_masks

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
Array = npt.NDArray[Any]
THRESHOLDS = pytest.mark.parametrize("threshold", [None, 0.5])


class Paste(torch.nn.Module):
    """Pastes into an image of the size of another tensor."""

    def __init__(self, threshold: float | None) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, masks: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
        size = (image.shape[-2], image.shape[-1])
        return paste_masks(masks, boxes, size, padding=2, threshold=self.threshold)


def draw(rng: np.random.Generator, count: int, height: int, width: int) -> tuple[Tensor, ...]:
    masks = torch.from_numpy(rng.random((count, 1, 7, 9), dtype=np.float32))
    return masks, random_boxes(rng, count, height, width), torch.zeros(3, height, width)


@THRESHOLDS
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_one_node_for_any_sizes(tmp_path: Path, rng, threshold: float | None, dynamo: bool) -> None:
    module, path = Paste(threshold).eval(), tmp_path / "model.onnx"
    free = {"masks": {0: "count"}, "boxes": {0: "count"}, "image": {1: "height", 2: "width"}}
    names: dict[str, Any] = {"input_names": list(free), "output_names": ["pasted"]}
    options = (
        {"dynamic_shapes": tuple(free.values())} if dynamo else {"dynamic_axes": free, **names}
    )
    export(module, draw(rng, 3, 20, 30), path, dynamo=dynamo, **options)
    model = onnx.load(path)
    (node,) = roi_nodes(model)
    expected_attributes = {"padding": 2} if threshold is None else {"padding": 2, "threshold": 0.5}
    assert (node.op_type, attributes(node)) == ("PasteMasks", expected_attributes)
    for count, height, width in ((3, 20, 30), (1, 31, 9), (8, 5, 50), (0, 6, 7)):
        inputs = draw(rng, count, height, width)
        expected = module(*inputs).numpy()
        assert expected.shape == (count, 1, height, width)
        for run in RUNS.values():
            (pasted,) = run(path, *(each.numpy() for each in inputs)).values()
            assert pasted.dtype == expected.dtype
            if threshold is None:
                assert_allclose(pasted, expected, *tolerances.KERNEL["float32"])
            else:
                assert_same_but_at_the_threshold(pasted, inputs[0].numpy(), inputs[1].numpy(), 2)


def assert_same_but_at_the_threshold(
    pasted: Array, masks: Array, boxes: Array, padding: int, threshold: float = 0.5
) -> None:
    """Check bytes where rounding cannot decide them."""
    values = reference.paste_masks(masks, boxes, pasted.shape[2:], padding=padding)
    sure = np.abs(values - threshold) > tolerances.KERNEL["float32"].atol
    assert (~sure).sum() <= 0.01 * sure.size
    assert_array_equal(pasted[sure], values[sure] >= threshold)


def model_of(opset: int, type_name: str, boxes_type: str, **given: Any) -> onnx.ModelProto:
    """Make a model of one node with its function."""
    types = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
    types["float16"] = TensorProto.FLOAT16
    node = helper.make_node(
        "PasteMasks", ["masks", "boxes", "size"], ["Y"], domain="ort_roialign", **given
    )
    values = [
        helper.make_tensor_value_info("masks", types[type_name], None),
        helper.make_tensor_value_info("boxes", types[boxes_type], None),
        helper.make_tensor_value_info("size", TensorProto.INT64, [2]),
    ]
    result = TensorProto.UINT8 if "threshold" in given else types[type_name]
    output = helper.make_tensor_value_info("Y", result, None)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ort_roialign", 1)]
    graph = helper.make_graph([node], "graph", values, [output])
    return add_fallback(helper.make_model(graph, opset_imports=imports, ir_version=8))


@pytest.mark.parametrize("opset", [16, 17, 18, 20, 21, 22, 23])
@pytest.mark.parametrize("threshold", [None, 0.4, -0.5])
def test_the_function_equals_the_reference(rng, opset: int, threshold: float | None) -> None:
    given = {} if threshold is None else {"threshold": threshold}
    for count, size, padding in (
        (9, (60, 80), 1),
        (4, (5, 200), 0),
        (0, (7, 8), 3),
        (2, (1, 1), 5),
    ):
        model = model_of(opset, "float32", "float32", padding=padding, **given)
        masks = rng.random((count, 1, 28, 28), dtype=np.float32)
        boxes = random_boxes(rng, count, *size).numpy()
        boxes[: count // 2] *= 3  # also far outside
        pasted = run_without_plugin(model, masks, boxes, np.array(size))["Y"]
        if threshold is None:
            expected = reference.paste_masks(masks, boxes, size, padding=padding)
            assert_allclose(pasted, expected, *tolerances.KERNEL["float32"])
        else:
            assert pasted.dtype == np.uint8
            assert_same_but_at_the_threshold(pasted, masks, boxes, padding, threshold)


@pytest.mark.parametrize(
    ("type_name", "boxes_type"), [("float64", "float64"), ("float16", "float32")]
)
def test_the_function_in_other_types(rng, type_name: str, boxes_type: str) -> None:
    masks = rng.random((5, 1, 14, 14)).astype(type_name)
    boxes = random_boxes(rng, 5, 40, 50).numpy().astype(boxes_type)
    model = model_of(18, type_name, boxes_type)
    pasted = run_without_plugin(model, masks, boxes, np.array([40, 50]))["Y"]
    assert pasted.dtype == type_name
    expected = reference.paste_masks(masks, boxes, (40, 50))
    assert_allclose(pasted, expected, *tolerances.KERNEL[type_name])


def test_a_file_cannot_hold_both_functions() -> None:
    model = model_of(18, "float32", "float32")
    del model.functions[:]
    node = helper.make_node(
        "PasteMasks", ["masks", "boxes", "size"], ["Z"], domain="ort_roialign", threshold=0.5
    )
    model.graph.node.append(node)
    with pytest.raises(ExportError) as caught:
        add_fallback(model)
    assert str(caught.value).startswith(
        "add_fallback: all nodes of PasteMasks must have attribute threshold, or none, because"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"padding": -1}, "attribute padding must be at least 0; got -1"),
        ({"padding": 1.5}, "attribute padding must be an integer; got 1.5"),
        ({"threshold": 1}, "attribute threshold must be a float; got 1"),
        ({"threshold": float("nan")}, "attribute threshold must be finite; got nan"),
    ],
)
def test_bad_attributes_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        model_of(18, "float32", "float32", **given)
    assert str(caught.value) == f"PasteMasks: {message}"


def test_the_functions_attributes() -> None:
    plain = fallback_function("PasteMasks")
    assert [a.name for a in plain.attribute_proto] == ["padding"]
    assert not plain.attribute
    assert list(fallback_function("PasteMasks", attributes=["threshold"]).attribute) == [
        "threshold"
    ]
