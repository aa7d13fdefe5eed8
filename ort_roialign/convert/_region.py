"""Runs a part of a model on values of our own, to prove what the part does.

A pattern of nodes tells what a part is meant to do; running it tells what it does. Parts that
only choose, move and resample are proven by random values: a wrong column, row or order shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime

import ort_roialign
from ort_roialign.convert._graph import (
    DOMAIN,
    DOMAIN_VERSION,
    NotConvertibleError,
    elements,
    inputs_of,
    label,
    tensor_of,
)

Array = npt.NDArray[Any]
# onnxruntime's own largest; a part has nothing that needs a newer one.
_IR_VERSION = 10


def nodes_between(inputs: Iterable[ir.Value], output: ir.Value) -> list[ir.Node]:
    """Return the nodes that make a value from others and from constants, each after its inputs.

    Raises:
        NotConvertibleError: if it depends on something else.
    """
    known = set(inputs)
    order: list[ir.Node] = []
    done: set[ir.Node] = set()
    waiting: list[tuple[ir.Value, bool]] = [(output, False)]
    while waiting:
        value, inputs_are_done = waiting.pop()
        if value in known or (value.producer() is None and tensor_of(value) is not None):
            continue
        node = value.producer()
        if node is None:
            raise NotConvertibleError(f"it depends on {value.name}, which is neither boxes nor map")
        if node in done:
            continue
        if inputs_are_done:
            done.add(node)
            order.append(node)
        else:
            waiting.append((value, True))
            waiting += [(each, False) for each in inputs_of(node)]
    return order


def run_region(
    values: Mapping[ir.Value, Array], output: ir.Value, opsets: Mapping[str, int]
) -> Array:
    """Compute a value from others, in onnxruntime with this package's kernels.

    Args:
        values: what to start from.
        output: the value to compute.
        opsets: domain -> version that the nodes are written for.

    Raises:
        NotConvertibleError: if it depends on something else, or cannot run.
    """
    nodes = nodes_between(values, output)
    read = {each for node in nodes for each in inputs_of(node)}
    constants = [v for v in read if v.producer() is None and v not in values]
    view = ir.GraphView(list(values), [output], nodes=nodes, initializers=constants, name="part")
    graph = view.clone()
    feeds = {}
    for number, (inner, array) in enumerate(zip(graph.inputs, values.values(), strict=True)):
        inner.name = f"part_input_{number}"
        inner.dtype = ir.DataType.from_numpy(array.dtype)
        inner.shape = ir.Shape(array.shape)
        feeds[inner.name] = array
    for inner in graph.initializers.values():
        if isinstance(inner.const_value, ir.ExternalTensor):
            inner.const_value = ir.tensor(elements(inner.const_value), name=inner.name)
    for made in (each for node in graph for each in node.outputs):
        # Sizes that were noted in the whole model need not be those of these values.
        made.shape = None
    graph.outputs[0].dtype = ir.DataType.FLOAT
    graph.opset_imports.update({**opsets, DOMAIN: DOMAIN_VERSION})
    model = ir.to_proto(ir.Model(graph, ir_version=_IR_VERSION))
    try:
        session = ort_roialign.InferenceSession(model, ["CPUExecutionProvider"], _quiet())
        (result,) = session.run(None, feeds)
    except Exception as error:  # onnxruntime's errors have no common class
        first_line = next(iter(str(error).splitlines()), "")
        raise NotConvertibleError(
            f"the nodes up to {label(nodes[-1]) if nodes else output.name} do not run by "
            f"themselves: {first_line}"
        ) from error
    return np.asarray(result)


def _quiet() -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what a part is warned of says nothing of the model
    return options
