"""The two ways an exported file runs: on the plugin's kernels, and without the plugin."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
import onnx
import onnxruntime

import ort_roialign

Array = npt.NDArray[Any]


class Run(Protocol):
    """Runs a model on inputs in the graph's order; returns outputs by name."""

    def __call__(self, model: Path | onnx.ModelProto, *inputs: Array) -> dict[str, Array]: ...


def run_session(session: onnxruntime.InferenceSession, *inputs: Array) -> dict[str, Array]:
    feeds = {i.name: x for i, x in zip(session.get_inputs(), inputs, strict=True)}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def run_on_kernels(model: Path | onnx.ModelProto, *inputs: Array) -> dict[str, Array]:
    """Run on the plugin; without the functions, nothing but the kernels can have run.

    One function stays, which no kernel stands for.
    """
    return run_session(_session(_session_on_kernels, model), *inputs)


def run_without_plugin(model: Path | onnx.ModelProto, *inputs: Array) -> dict[str, Array]:
    return run_session(_session(_session_without_plugin, model), *inputs)


Start = Callable[[Path | onnx.ModelProto], onnxruntime.InferenceSession]


def _session(start: Start, model: Path | onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Start a session; a file that is as it was keeps its own, which costs more than a run."""
    if isinstance(model, Path):
        return _kept_session(start, model, model.stat().st_mtime_ns)
    return start(model)


@functools.lru_cache(maxsize=2)
def _kept_session(start: Start, path: Path, _written: int) -> onnxruntime.InferenceSession:
    return start(path)


def _session_on_kernels(model: Path | onnx.ModelProto) -> onnxruntime.InferenceSession:
    proto = onnx.load(model) if isinstance(model, Path) else model
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.functions[:]
    bare.functions.extend(each for each in proto.functions if each.name == "HeatmapsToKeypoints")
    return ort_roialign.InferenceSession(bare, ["CPUExecutionProvider"])


def _session_without_plugin(model: Path | onnx.ModelProto) -> onnxruntime.InferenceSession:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])


RUNS: dict[str, Run] = {"kernels": run_on_kernels, "without_plugin": run_without_plugin}
