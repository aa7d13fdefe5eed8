"""Reads from onnxruntime's own profile which kernels ran, and how long they took.

The profile names each node that ran, its operator and its provider, but not the operator's domain:
`RoiAlign` may be the standard one or this package's. The domain is in the model as onnxruntime
saved it after optimising and inlining, under the same node name; so the two files together prove
whose kernel ran. A node without a name is called by its operator and a number in the profile.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ort_roialign._domains import DOMAIN
from ort_roialign.errors import OrtRoiAlignError

if TYPE_CHECKING:
    import onnx

PLUGIN_DOMAIN = DOMAIN
# The standard domain is written as an empty string in a model.
STANDARD_DOMAIN = "ai.onnx"
# What an operator for regions of interest has in its name, in both domains.
ROI_OPERATOR_MARK = "roi"
_WITH_BODIES = ("If", "Loop", "Scan")


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
    import onnx

    model = onnx.load(str(optimized_model), load_external_data=False)
    domains = _domains_by_node(_all_nodes(model.graph))

    def wanted_domain(call: _KernelCall) -> str | None:
        domain = _domain_of(call, domains)
        is_roi_operator = ROI_OPERATOR_MARK in call.operator.lower()
        if domain is None and is_roi_operator:
            raise OrtRoiAlignError(
                f"a {call.operator} node that ran is not in the model: {call.node!r}"
            )
        return domain if is_roi_operator or domain == PLUGIN_DOMAIN else None

    return _read_profile(profile, wanted_domain)


def read_whole_profile(profile: Path, optimized_model: Path) -> KernelProfile:
    """Read all kernels that ran; what runs inside an If or a Loop is in the time of that node.

    Args:
        profile: see `read_kernel_profile`.
        optimized_model: likewise.

    Raises:
        OrtRoiAlignError: if a node that ran cannot be told by its name.
    """
    import onnx

    model = onnx.load(str(optimized_model), load_external_data=False)
    domains = _domains_by_node(model.graph.node)
    return _read_profile(
        profile, lambda call: None if call.is_inside_another else _domain_of(call, domains)
    )


@dataclass(frozen=True)
class _KernelCall:
    """One call of a kernel: of which node, operator and provider, and its microseconds."""

    node: str
    operator: str
    provider: str
    duration: float
    is_inside_another: bool


def _domain_of(call: _KernelCall, domains: dict[tuple[str, str], str]) -> str | None:
    """Return the domain of a call's operator, or None if its node is not there."""
    domain = domains.get((call.node, call.operator))
    if domain is None and re.fullmatch(rf"{re.escape(call.operator)}_\d+", call.node):
        return domains.get(("", call.operator))
    return domain


def _read_profile(
    profile: Path, wanted_domain: Callable[[_KernelCall], str | None]
) -> KernelProfile:
    """Add up the last run's calls whose domain is told; the others are not wanted."""
    events: list[dict[str, Any]] = json.loads(profile.read_text(encoding="utf-8"))
    runs = [event for event in events if event.get("name") == "model_run"]
    if not runs:
        raise OrtRoiAlignError(f"the onnxruntime profile {profile.name} holds no run")
    last_run = max(runs, key=lambda event: float(event["ts"]))
    nodes: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    microseconds: dict[tuple[str, str, str], float] = defaultdict(float)
    for call in _kernel_calls(events, since=last_run["ts"]):
        domain = wanted_domain(call)
        if domain is not None:
            use = domain, call.operator, call.provider
            nodes[use].add(call.node)
            microseconds[use] += call.duration
    kernels = tuple(
        KernelUse(*key, nodes=len(names), milliseconds=microseconds[key] / 1000)
        for key, names in sorted(nodes.items())
    )
    return KernelProfile(kernels, last_run["dur"] / 1000)


def _kernel_calls(events: list[dict[str, Any]], *, since: float) -> Iterator[_KernelCall]:
    """Yield the kernel calls from a time on, in the order in which they began."""
    suffix = "_kernel_time"
    wanted = [
        event
        for event in events
        if event.get("cat") == "Node"
        and str(event.get("name", "")).endswith(suffix)
        and event["ts"] >= since
    ]
    end = since  # of the last If, Loop or Scan
    # What begins as soon as it does is inside it: the longer one comes first.
    for event in sorted(wanted, key=lambda each: (each["ts"], -each["dur"])):
        start, arguments = float(event["ts"]), event["args"]
        yield _KernelCall(
            node=event["name"].removesuffix(suffix),
            operator=arguments["op_name"],
            provider=arguments["provider"],
            duration=float(event["dur"]),
            is_inside_another=start < end,
        )
        if arguments["op_name"] in _WITH_BODIES:
            end = max(end, start + event["dur"])


def _domains_by_node(nodes: Iterable[onnx.NodeProto]) -> dict[tuple[str, str], str]:
    """Return the domain of each (node name, operator)."""
    domains: dict[tuple[str, str], str] = {}
    for node in nodes:
        key = (node.name, node.op_type)
        domain = node.domain or STANDARD_DOMAIN
        if domains.setdefault(key, domain) != domain:
            same = f"are both named {node.name!r}" if node.name else "have no names"
            raise OrtRoiAlignError(
                f"two {node.op_type} nodes {same}: one of {domain}, one of {domains[key]}; which "
                f"of them a profile means cannot be told"
            )
    return domains


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield a graph's nodes and those in the bodies of If and Loop."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):  # an attribute's only graph
                yield from _all_nodes(attribute.g)
