"""Reads from onnxruntime's own profile which kernels ran, and how long they took.

The profile names each node that ran, its operator and its provider, but not the operator's domain:
`RoiAlign` may be the standard one or this package's. The domain is in the model as onnxruntime
saved it after optimising and inlining, under the same node name; so the two files together prove
whose kernel ran.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from ort_roialign.errors import OrtRoiAlignError

PLUGIN_DOMAIN = "ort_roialign"
# The standard domain is written as an empty string in a model.
STANDARD_DOMAIN = "ai.onnx"
# What an operator for regions of interest has in its name, in both domains.
ROI_OPERATOR_MARK = "roi"


@dataclass(frozen=True)
class KernelUse:
    """The nodes of one operator that ran on one provider.

    Attributes:
        domain: `ort_roialign` or `ai.onnx`.
        operator: the operator's name within the domain.
        provider: the execution provider that ran it.
        nodes: how many nodes of the graph.
        milliseconds: the time of all of them together, in the last run.
    """

    domain: str
    operator: str
    provider: str
    nodes: int
    milliseconds: float

    @property
    def is_roi_operator(self) -> bool:
        """Whether it reads regions of interest (and is not, say, a mask paste)."""
        return ROI_OPERATOR_MARK in self.operator.lower()

    def __str__(self) -> str:
        provider = self.provider.removesuffix("ExecutionProvider")
        return f"{self.nodes} x {self.domain}::{self.operator} ({provider})"


@dataclass(frozen=True)
class KernelProfile:
    """The operators that ran, all or those of RoIs and the plugin, and the time of the whole run.

    Kernels and times are those of the last run, since the first one also allocates memory.
    """

    kernels: tuple[KernelUse, ...]
    run_milliseconds: float

    def ran(self, domain: str) -> bool:
        """Whether a RoI operator of this domain ran."""
        return any(k.domain == domain and k.is_roi_operator for k in self.kernels)

    @property
    def roi_milliseconds(self) -> float:
        """The time of all RoI operators together, in one run."""
        return sum(k.milliseconds for k in self.kernels if k.is_roi_operator)

    @property
    def roi_share(self) -> float:
        """The part of the run that RoI operators took, 0 to 1."""
        return self.roi_milliseconds / self.run_milliseconds if self.run_milliseconds else 0.0


def read_kernel_profile(profile: Path, optimized_model: Path) -> KernelProfile:
    """Read which RoI and plugin kernels ran, wherever in the model.

    Args:
        profile: the JSON file that `InferenceSession.end_profiling` names.
        optimized_model: the model saved through `SessionOptions.optimized_model_filepath` by the
            same session.

    Raises:
        OrtRoiAlignError: if a node that ran cannot be told by its name.
    """
    model = onnx.load(str(optimized_model), load_external_data=False)
    domains = _domains_by_node(_all_nodes(model.graph))

    def is_wanted(name: str, operator: str) -> bool:
        is_roi_operator = ROI_OPERATOR_MARK in operator.lower()
        if (name, operator) not in domains and is_roi_operator:
            raise OrtRoiAlignError(f"a {operator} node that ran is not in the model: {name!r}")
        return is_roi_operator or domains.get((name, operator)) == PLUGIN_DOMAIN

    return _read_profile(profile, domains, is_wanted)


def read_whole_profile(profile: Path, optimized_model: Path) -> KernelProfile:
    """Read all kernels that ran; what runs inside an If or a Loop is in the time of that node.

    Args:
        profile: see `read_kernel_profile`.
        optimized_model: likewise.

    Raises:
        OrtRoiAlignError: if a node that ran cannot be told by its name.
    """
    model = onnx.load(str(optimized_model), load_external_data=False)
    domains = _domains_by_node(model.graph.node)
    return _read_profile(profile, domains, lambda *node: node in domains)


def _read_profile(
    profile: Path, domains: dict[tuple[str, str], str], is_wanted: Callable[[str, str], bool]
) -> KernelProfile:
    events: list[dict[str, Any]] = json.loads(profile.read_text(encoding="utf-8"))
    runs = [event for event in events if event.get("name") == "model_run"]
    if not runs:
        raise OrtRoiAlignError(f"the onnxruntime profile {profile.name} holds no run")
    last_run = max(runs, key=lambda event: float(event["ts"]))
    nodes: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    microseconds: dict[tuple[str, str, str], float] = defaultdict(float)
    for name, operator, provider, duration in _kernel_events(events, since=last_run["ts"]):
        if is_wanted(name, operator):
            use = domains[name, operator], operator, provider
            nodes[use].add(name)
            microseconds[use] += duration
    kernels = tuple(
        KernelUse(*key, nodes=len(names), milliseconds=microseconds[key] / 1000)
        for key, names in sorted(nodes.items())
    )
    return KernelProfile(kernels, last_run["dur"] / 1000)


def _kernel_events(
    events: list[dict[str, Any]], *, since: float
) -> Iterator[tuple[str, str, str, float]]:
    """Yield (node name, operator, provider, microseconds) of each kernel call from a time on."""
    suffix = "_kernel_time"
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(suffix) and event["ts"] >= since:
            arguments = event["args"]
            yield (
                name.removesuffix(suffix),
                arguments["op_name"],
                arguments["provider"],
                float(event["dur"]),
            )


def _domains_by_node(nodes: Iterable[onnx.NodeProto]) -> dict[tuple[str, str], str]:
    """Return the domain of each (node name, operator)."""
    domains: dict[tuple[str, str], str] = {}
    for node in nodes:
        key = (node.name, node.op_type)
        domain = node.domain or STANDARD_DOMAIN
        if domains.setdefault(key, domain) != domain:
            raise OrtRoiAlignError(f"two {node.op_type} nodes are both named {node.name!r}")
    return domains


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield a graph's nodes and those in the bodies of If and Loop."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)
