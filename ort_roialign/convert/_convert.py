"""Finds what can be converted in a model, and converts it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

import onnx
import onnx_ir as ir

from ort_roialign._domains import DOMAIN, DOMAIN_VERSION, STANDARD_DOMAINS
from ort_roialign.convert._graph import (
    NotConvertibleError,
    all_nodes,
    graphs_of,
    inputs_of,
    label,
    name_new_values,
    operator_name,
)
from ort_roialign.convert._mask_loop import convert_mask_loop, may_paste_masks
from ort_roialign.convert._pyramid import (
    chooses_boxes,
    fuse_pyramid,
    is_own_roi_align,
    last_merge,
)
from ort_roialign.convert._report import ConversionReport, Left, Replacement
from ort_roialign.convert._roi_align import convert_roi_align, is_standard_roi_align
from ort_roialign.convert._translated import convert_translated, is_translated, other_domains
from ort_roialign.errors import InvalidArgumentError, LibraryNotFoundError


@dataclass
class _Scope:
    """The main graph or a function, with its subgraphs."""

    graph: ir.Graph
    opsets: dict[str, int]
    fold_shift: bool
    own_operators: frozenset[tuple[str, str]]
    left: list[Left] = field(default_factory=list)
    warnings: dict[ir.Node, list[str]] = field(default_factory=dict)
    done: dict[ir.Node, Replacement] = field(default_factory=dict)

    @contextlib.contextmanager
    def leaving(self, node: ir.Node, operator: str) -> Iterator[None]:
        """Report what is not converted; a node that no checker would pass keeps nothing else so."""
        try:
            yield
        except NotConvertibleError as error:
            self.left.append(Left(label(node), operator, str(error)))
        except LibraryNotFoundError:
            raise
        except Exception as error:  # of any kind: nodes may lack inputs, attributes or outputs
            reason = f"it cannot be read: {type(error).__name__}: {error}"
            self.left.append(Left(label(node), operator, reason))

    @property
    def default_opset(self) -> int:
        return next((self.opsets[each] for each in STANDARD_DOMAINS if each in self.opsets), 1)


def convert(model: onnx.ModelProto, *, fold_shift: bool = True) -> onnx.ModelProto:
    """Convert a model's RoI operators to those of the domain `ort_roialign`.

    Converted are ONNX's RoiAlign and MaxRoiPool, mmcv's and mmdeploy's operators, the level
    choice, pooling and merging of torchvision's, detectron2's, mmdet's and mmdeploy's feature
    pyramids, and the loop that pastes a Mask R-CNN's masks; in subgraphs and functions too. Names
    of inputs and outputs, metadata and other nodes stay, and weights in other files where they are.

    Args:
        model: the model; not changed.
        fold_shift: whether a RoiAlign of opset 10 to 15, or of a later one with
            output_half_pixel, after `Sub(rois, 0.5 / spatial_scale)`, which is how exporters wrote
            aligned=True, becomes `half_pixel`. Boxes narrower than one cell of the map then give
            other results.

    Returns:
        The converted model, equal to the given one where there is nothing to convert.

    Raises:
        InvalidArgumentError: if the model is not an `onnx.ModelProto`, holds what onnx_ir does not,
            sparse initializers or training steps, or has a cycle of nodes.
        LibraryNotFoundError: if the shared library is missing, which knows other operators, and
            proves pyramids and loops.
        OrtRoiAlignError: if the library cannot be loaded.
    """
    return convert_with_report(model, fold_shift=fold_shift)[0]


def convert_with_report(
    model: onnx.ModelProto, *, fold_shift: bool = True
) -> tuple[onnx.ModelProto, ConversionReport]:
    """Convert a model as `convert` does, and tell what was done.

    Returns:
        The converted model, and the report.
    """
    if not isinstance(model, onnx.ModelProto):
        raise InvalidArgumentError(
            f"convert: model must be an onnx.ModelProto; got {type(model).__name__}; "
            f"convert_file takes paths"
        )
    held = hold(model)
    report = convert_in_place(held, fold_shift)
    if report.converted:
        return ir.to_proto(held), report
    unchanged = onnx.ModelProto()
    unchanged.CopyFrom(model)
    return unchanged, report


def hold(model: onnx.ModelProto) -> ir.Model:
    """Give a model to onnx_ir.

    Raises:
        InvalidArgumentError: if it has no graph, or holds what onnx_ir would drop, or cannot read,
            or a cycle.
    """
    if not model.HasField("graph"):
        raise InvalidArgumentError("convert: model must be an ONNX model; got one without a graph")
    sparse = [each.values.name for each in _sparse_initializers(model.graph)]
    if sparse or model.training_info:
        found = f"the sparse initializers {', '.join(sparse)}" if sparse else "training steps"
        raise InvalidArgumentError(
            f"convert: model must have neither sparse initializers nor training steps; got {found}"
        )
    try:
        held = ir.from_proto(model)
    except Exception as error:  # of many kinds
        raise InvalidArgumentError(f"convert: model cannot be read: {error}") from error
    _check_order(held)
    return held


def _check_order(model: ir.Model) -> None:
    """Check that no node reads what is made of its own result: walks back would never end."""
    for graph in graphs_of(model):
        read = {node: [each.producer() for each in inputs_of(node)] for node in all_nodes(graph)}
        makers = {
            node: [each for each in given if each is not None] for node, given in read.items()
        }
        try:
            TopologicalSorter(makers).prepare()
        except CycleError as error:
            raise InvalidArgumentError(
                f"convert: model must have no cycle of nodes; got one through "
                f"{label(error.args[1][0])}"
            ) from error


def _sparse_initializers(graph: onnx.GraphProto) -> Iterator[onnx.SparseTensorProto]:
    yield from graph.sparse_initializer
    for attribute in (each for node in graph.node for each in node.attribute):
        for inner in (attribute.g, *attribute.graphs):
            yield from _sparse_initializers(inner)


def convert_in_place(model: ir.Model, fold_shift: bool) -> ConversionReport:
    """Convert a model that onnx_ir holds, in place."""
    report = ConversionReport(nodes_before=_count(model))
    own_operators = frozenset((domain, name) for domain, name, _ in model.functions)
    scopes = [(model.graph, model.opset_imports, "")]
    scopes += [(each.graph, each.opset_imports, each.domain) for each in model.functions.values()]
    for graph, opsets, domain in scopes:
        if domain == DOMAIN:
            continue  # a function that stands in for the plugin must not call it
        scope = _Scope(graph, opsets, fold_shift, own_operators)
        _convert_scope(scope)
        if scope.done:
            # onnxruntime wants a function's domains in the model's list, too.
            opsets[DOMAIN] = model.opset_imports[DOMAIN] = DOMAIN_VERSION
        report.replaced += scope.done.values()
        report.left += scope.left
        report.warnings += _together(scope.warnings)
    name_new_values(graphs_of(model))
    report.nodes_after = _count(model)
    report.warnings += _hints(model, report)
    _warn_of_missing_functions(report, own_operators)
    return report


def _together(warnings: dict[ir.Node, list[str]]) -> list[str]:
    """Return each sentence once, with the names of all nodes that it is said of."""
    names: dict[str, list[str]] = {}
    for node, sentences in warnings.items():
        for sentence in sentences:
            names.setdefault(sentence, []).append(label(node))
    return [f"{', '.join(names[sentence])}: {sentence}" for sentence in names]


def _hints(model: ir.Model, report: ConversionReport) -> Iterator[str]:
    """Yield what may be why something was left, or nothing was found."""
    own = [node for graph in graphs_of(model) for node in all_nodes(graph) if node.domain == DOMAIN]
    if own and not report.converted:
        yield f"the model has nodes of this package already: {len(own)}"
    free = [each.name for each in model.graph.inputs if each.is_initializer()]
    if free and report.left:
        yield (
            f"initializers that are inputs of the graph, too, may be given other values, so they "
            f"were not read as constants: {free[0]} and others, {len(free)} in all; "
            f"onnxruntime.tools.remove_initializer_from_inputs makes constants of them"
        )


def _warn_of_missing_functions(
    report: ConversionReport, own_operators: frozenset[tuple[str, str]]
) -> None:
    """Warn where a model that ran without the plugin does not any more."""
    functions = {name for domain, name in own_operators if domain == DOMAIN}
    missing = {each.operator for each in report.replaced} - functions
    if functions and missing:
        report.warnings.append(
            f"the model holds functions to run without the plugin, and none for "
            f"{', '.join(sorted(missing))}; --fallback, or onnx_export.add_fallback, adds them"
        )


def _count(model: ir.Model) -> int:
    return sum(len(all_nodes(graph)) for graph in graphs_of(model))


def _convert_scope(scope: _Scope) -> None:
    for node in all_nodes(scope.graph):
        if node.op_identifier()[:2] not in scope.own_operators and (
            is_standard_roi_align(node) or is_translated(node)
        ):
            _convert_operator(scope, node)
        elif (
            node.op_identifier()[:2] not in scope.own_operators
            and node.domain not in (DOMAIN, *STANDARD_DOMAINS)
            and (known := other_domains(node))
        ):
            reason = f"its name is known in the domain {' and '.join(known)}"
            scope.left.append(Left(label(node), operator_name(node), reason))
    _fuse_pyramids(scope)
    for node in all_nodes(scope.graph):
        if node.graph is not None and may_paste_masks(node):
            _convert_loop(scope, node)


def _convert_operator(scope: _Scope, node: ir.Node) -> None:
    """Convert one RoI operator of another domain."""
    before = operator_name(node)
    with scope.leaving(node, before):
        if is_standard_roi_align(node):
            warnings = convert_roi_align(node, scope.default_opset, scope.fold_shift)
            scope.warnings[node] = warnings
        else:
            convert_translated(node)
        scope.done[node] = Replacement(label(node), node.op_type, before, (label(node),))


def _fuse_pyramids(scope: _Scope) -> None:
    merges: dict[ir.Node, list[ir.Node]] = {}
    for pool in (node for node in all_nodes(scope.graph) if is_own_roi_align(node)):
        with scope.leaving(pool, "part of a pyramid"):
            last = last_merge(pool)
            if last is not None:
                merges.setdefault(last, []).append(pool)
    _report_unmerged(scope, {pool for pools in merges.values() for pool in pools[1:] and pools})
    for last, pools in merges.items():
        if len(pools) == 1:
            continue
        what = f"pyramid of {len(pools)} maps"
        sources = tuple(label(pool) for pool in pools)
        with scope.leaving(last, what):
            node = fuse_pyramid(last, pools, scope.opsets)
            for pool in pools:
                scope.done.pop(pool, None)
            scope.done[node] = Replacement(label(node), node.op_type, what, sources)


def _report_unmerged(scope: _Scope, merged: set[ir.Node]) -> None:
    """Report what chooses boxes for several maps, and merges what they are pooled to otherwise."""
    pools = [
        node
        for node in all_nodes(scope.graph)
        if is_own_roi_align(node) and node not in merged and chooses_boxes(node)
    ]
    if len({pool.inputs[0] for pool in pools}) > 1:
        reason = (
            f"what {', '.join(map(label, pools))} pool is merged in no known way, by "
            f"ScatterElements, ScatterND or Add; of a file that was exported without optimization, "
            f"convert what onnxscript.optimizer.optimize makes"
        )
        scope.left.append(Left(label(pools[0]), f"pyramid of {len(pools)} maps", reason))


def _convert_loop(scope: _Scope, loop: ir.Node) -> None:
    what, name = "loop that pastes masks", label(loop)
    with scope.leaving(loop, what):
        node = convert_mask_loop(loop, scope.opsets)
        scope.done[node] = Replacement(label(node), node.op_type, what, (name,))
