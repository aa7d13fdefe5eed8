"""Models with custom operators of other libraries, which may have the RoI operators' domain."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import helper
from test_convert_mmcv import PYRAMID, mmcv_model

import ort_roialign
from ort_roialign.convert import convert_file
from ort_roialign.convert._sessions import make_session
from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that compiles a library with a domain, with mmdeploy's operator or not."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    assert compiler, "there is no C++ compiler; set CXX to one"
    source = Path(__file__).with_name("foreign_operators.cpp")

    @cache
    def compile_it(domain: str, with_roi_operator: bool) -> Path:
        path = tmp_path_factory.mktemp("library") / "libforeign.so"
        flags = ["-std=c++17", "-shared", "-fPIC", f'-DFOREIGN_DOMAIN="{domain}"']
        flags += ["-DWITH_ROI_OPERATOR"] if with_roi_operator else []
        command = [*compiler.split(), *flags, source, "-o", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return path

    return compile_it


def model_with_another(domain: str, **attributes: float) -> onnx.ModelProto:
    """Mmdeploy's pooling, and an operator of a domain after it."""
    inputs = ["rois", "x0", "x1", "x2"]
    model = mmcv_model(
        "MMCVMultiLevelRoiAlign", "mmdeploy", inputs, **PYRAMID, aligned=1, **attributes
    )
    model.graph.node[0].output[0] = "pooled"
    model.graph.node.append(helper.make_node("Other", ["pooled"], ["y"], domain=domain))
    if domain != "mmdeploy":
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


@pytest.mark.parametrize(
    ("domain", "with_roi_operator"),
    [("others", False), ("mmdeploy", False), ("mmdeploy", True)],
)
def test_with_another_library(tmp_path, library, domain, with_roi_operator):
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model_with_another(domain), source)
    libraries = [library(domain, with_roi_operator)]
    report = convert_file(source, target, libraries=libraries)
    assert report.counts == {("mmdeploy::MMCVMultiLevelRoiAlign", "MultiScaleRoiAlign"): 1}
    make_session(target, libraries)
    # The original loads on this package's kernel, or on the library's.
    if domain == "others" or with_roi_operator:
        make_session(source, libraries)
    else:
        with pytest.raises(Exception, match="MMCVMultiLevelRoiAlign"):
            make_session(source, libraries)


def test_an_operator_that_is_left_is_the_librarys(tmp_path, library):
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    model = model_with_another("mmdeploy", roi_scale_factor=2.0)
    inputs = [
        helper.make_tensor_value_info(name, kind, ["rows", *columns])
        for name, kind, columns in (("own_rois", 1, [4]), ("own_images", 7, []))
    ]
    model.graph.input.extend(inputs)
    model.graph.node[1].output[0] = "other"
    pool = helper.make_node("RoiAlign", ["other", "own_rois", "own_images"], ["y"])
    model.graph.node.append(pool)
    onnx.save(model, source)
    report = convert_file(source, target, libraries=[library("mmdeploy", True)])
    assert report.counts == {("ai.onnx::RoiAlign", "RoiAlign"): 1}
    assert "roi_scale_factor" in report.left[0].reason


def test_without_the_library_nothing_is_written(tmp_path):
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model_with_another("others"), source)
    with pytest.raises(OrtRoiAlignError, match="can load neither model"):
        convert_file(source, target)
    assert not target.exists()


def test_a_library_that_is_none(tmp_path, monkeypatch):
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model_with_another("others"), source)
    (tmp_path / "libnone.so").write_text("text")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgumentError, match=r"libraries must .* got libnone.so: .*libnone"):
        convert_file(source, target, libraries=["libnone.so"])
    assert not target.exists()


def test_a_name_is_looked_for_here(tmp_path, library, monkeypatch):
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model_with_another("others"), source)
    path = library("others", False)
    monkeypatch.chdir(path.parent)
    assert convert_file(source, target, libraries=[path.name]).converted


def test_the_library_has_the_domain_alone(library):
    """Onnxruntime itself refuses a second one: this is why only one may have it."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library("mmdeploy", True)))
    model = model_with_another("mmdeploy")
    providers = ["CPUExecutionProvider"]
    with pytest.raises(Exception, match="Domain already set"):
        ort_roialign.InferenceSession(
            model.SerializeToString(), providers, options, domains=["mmdeploy"]
        )
