"""Runs a part of a model on values of our own, to prove what the part does.

A pattern of nodes tells what a part is meant to do; running it tells what it does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime

import ort_roialign
from ort_roialign._domains import DOMAIN, DOMAIN_VERSION
from ort_roialign.convert._graph import (
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
            raise NotConvertibleError(f"it depends on {value.name}, which is none of its inputs")
        if node in done:
            continue
        if inputs_are_done:
            done.add(node)
            order.append(node)
        else:
            waiting.append((value, True))
            waiting += [(each, False) for each in inputs_of(node)]
    return order


class Region:
    """The nodes between some values, in a session with this package's kernels."""

    def __init__(
        self, values: Mapping[ir.Value, Array], output: ir.Value, opsets: Mapping[str, int]
    ) -> None:
        """Make the session.

        Args:
            values: what to start from, of the types that runs will have.
            output: the value to compute, float32.
            opsets: domain -> version that the nodes are written for.

        Raises:
            NotConvertibleError: if it depends on something else, is of other types, or does not
                load.
        """
        types = {value: ir.DataType.from_numpy(array.dtype) for value, array in values.items()}
        for value, dtype in (*types.items(), (output, ir.DataType.FLOAT)):
            if value.dtype is not None and value.dtype != dtype:
                raise NotConvertibleError(
                    f"{value.name} must be of type {dtype}; got {value.dtype}"
                )
        nodes = nodes_between(values, output)
        self._last = label(nodes[-1]) if nodes else str(output.name)
        self._inputs = list(values)
        model = ir.to_proto(_model_of(nodes, types, output, opsets))
        with self._told():
            self._session = ort_roialign.InferenceSession(model, ["CPUExecutionProvider"], _quiet())

    def run(self, values: Mapping[ir.Value, Array]) -> Array:
        """Compute the output.

        Raises:
            NotConvertibleError: if onnxruntime reports an error.
        """
        feeds = {_input_name(number): values[each] for number, each in enumerate(self._inputs)}
        with self._told():
            (result,) = self._session.run(None, feeds)
        return np.asarray(result)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # onnxruntime's errors have no common class
            first_line = next(iter(str(error).splitlines()), "")
            raise NotConvertibleError(
                f"the nodes up to {self._last} do not run by themselves: {first_line}"
            ) from error


def _model_of(
    nodes: list[ir.Node],
    types: Mapping[ir.Value, ir.DataType],
    output: ir.Value,
    opsets: Mapping[str, int],
) -> ir.Model:
    read = {each for node in nodes for each in inputs_of(node)}
    constants = [v for v in read if v.producer() is None and v not in types]
    view = ir.GraphView(list(types), [output], nodes=nodes, initializers=constants, name="part")
    graph = view.clone()
    # What was noted in the whole model need not hold for other values. The clone shares its types
    # and shapes with the model: they are replaced, never changed.
    for made in (each for node in graph for each in node.outputs):
        made.shape = made.type = None
    for number, (inner, dtype) in enumerate(zip(graph.inputs, types.values(), strict=True)):
        inner.const_value = None  # a constant's name would change with this one, in the model too
        inner.name, inner.shape = _input_name(number), None
        inner.type = ir.TensorType(dtype)
    graph.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    for inner in graph.initializers.values():
        if isinstance(inner.const_value, ir.ExternalTensor):
            inner.const_value = ir.tensor(elements(inner.const_value), name=inner.name)
    graph.opset_imports.update({**opsets, DOMAIN: DOMAIN_VERSION})
    return ir.Model(graph, ir_version=_IR_VERSION)


def _input_name(number: int) -> str:
    return f"part_input_{number}"


def _quiet() -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what a part is warned of says nothing of the model
    return options
