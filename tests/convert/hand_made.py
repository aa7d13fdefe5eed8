"""Small models written by hand, and what the tests do with models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import ort_roialign

Array = np.ndarray[Any, Any]
_FLOAT, _INT64 = TensorProto.FLOAT, TensorProto.INT64
SCALE = 0.25


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    constants: Mapping[str, Array] | None = None,
    opset: int = 16,
    outputs: Iterable[str] = ("y",),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """Make a model; nodes of other domains import version 1 of them."""
    values = [helper.make_tensor_value_info(n, t, list(s)) for n, (t, s) in inputs.items()]
    results = [helper.make_tensor_value_info(name, _FLOAT, [None] * 4) for name in outputs]
    tensors = [numpy_helper.from_array(a, name) for name, a in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "hand_made", values, results, initializer=tensors)
    domains = {node.domain for node in nodes} - {""}
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(domain, 1) for domain in sorted(domains)]
    model = helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=9)
    model.producer_name, model.producer_version = "by hand", "7"
    model.doc_string = "a model of the tests"
    helper.set_model_props(model, {"author": "nobody"})
    return model


POOLED_INPUTS: dict[str, tuple[int, Sequence[int | str]]] = {
    "x": (_FLOAT, ("images", 3, 20, 24)),
    "rois": (_FLOAT, ("num_rois", 4)),
    "images": (_INT64, ("num_rois",)),
}


def roi_align_model(opset: int, shift: float | None = None, **attributes: Any) -> onnx.ModelProto:
    """Make a model of one RoiAlign, with Sub(rois, shift) before it if there is one."""
    given = {"output_height": 3, "output_width": 4, "spatial_scale": SCALE} | attributes
    rois = "rois" if shift is None else "moved"
    nodes = [helper.make_node("RoiAlign", ["x", rois, "images"], ["y"], name="pool", **given)]
    if shift is None:
        return model_of(nodes, POOLED_INPUTS, opset=opset)
    nodes.insert(0, helper.make_node("Sub", ["rois", "shift"], ["moved"], name="shift_boxes"))
    return model_of(nodes, POOLED_INPUTS, {"shift": np.array(shift, np.float32)}, opset)


def draw(rng: np.random.Generator, rows: int = 30, columns: int = 4) -> dict[str, Array]:
    """Draw a map, boxes (partly outside, some smaller than a cell) and their images."""
    sides = np.exp(rng.uniform(-1, 4.5, (rows, 2)))
    corners = rng.uniform(-10, 90, (rows, 2))
    return {
        "x": rng.standard_normal((2, 3, 20, 24)).astype(np.float32),
        "rois": np.concatenate([corners, corners + sides], axis=1).astype(np.float32),
        "images": rng.integers(0, 2, rows),
    }


def with_images(feeds: Mapping[str, Array]) -> Array:
    """Return rois [R, 5], the image first."""
    numbers = feeds["images"][:, None].astype(np.float32)
    return np.concatenate([numbers, feeds["rois"]], axis=1)


def run(
    model: onnx.ModelProto, feeds: Mapping[str, Array], domains: Iterable[str] = ()
) -> list[Array]:
    """Run a model on the CPU with the plugin; by default on no other domain's kernels."""
    session = ort_roialign.InferenceSession(model, ["CPUExecutionProvider"], domains=domains)
    results: list[Array] = session.run(None, dict(feeds))
    return results


def own_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == "ort_roialign"]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    values = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return {name: v.decode() if isinstance(v, bytes) else v for name, v in values.items()}
