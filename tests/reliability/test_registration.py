"""How a session gets the operators: the package's functions, and the library without them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.testing import assert_array_equal
from plugin import make_model, random_inputs

import ort_roialign
from ort_roialign.errors import (
    InvalidArgumentError,
    LibraryNotFoundError,
    MissingDependencyError,
    OrtRoiAlignError,
)

CPU = ["CPUExecutionProvider"]
SIZE = {"output_height": 3, "output_width": 4}


@pytest.fixture
def inputs(rng: np.random.Generator) -> dict[str, Any]:
    return random_inputs(rng, "float32", spatial_scale=1.0)


@pytest.fixture
def model(inputs: dict[str, Any]) -> onnx.ModelProto:
    return make_model("RoiAlign", SIZE, {name: array.dtype for name, array in inputs.items()})


@pytest.fixture
def options() -> onnxruntime.SessionOptions:
    fresh = onnxruntime.SessionOptions()
    fresh.log_severity_level = 4  # failures are expected, and reach the test as exceptions
    return fresh


def plain_session(model: onnx.ModelProto, options: onnxruntime.SessionOptions) -> Any:
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=CPU)


def by_function(options: onnxruntime.SessionOptions) -> None:
    ort_roialign.register(options)


def by_library(options: onnxruntime.SessionOptions) -> None:
    options.register_custom_ops_library(ort_roialign.get_library_path())


def test_without_the_library_the_operator_is_unknown(model, options):
    with pytest.raises(Exception, match="ort_roialign"):
        plain_session(model, options)


@pytest.mark.parametrize(
    "ways",
    [
        [by_function],
        [by_library],
        [by_function, by_function, by_function],
        [by_library, by_library],
        [by_library, by_function],
        [by_function, by_library],
        [by_library, by_function, by_library],
    ],
)
def test_registering_twice_is_registering_once(model, options, inputs, ways):
    for way in ways:
        way(options)
    (y,) = plain_session(model, options).run(None, inputs)
    assert y.shape == (8, 3, 3, 4)


def test_two_sessions_of_the_same_options(model, options, inputs):
    ort_roialign.register(options)
    first = plain_session(model, options)
    second = ort_roialign.InferenceSession(model, providers=CPU, session_options=options)
    (expected,) = first.run(None, inputs)
    del first
    assert_array_equal(second.run(None, inputs)[0], expected)


def test_sessions_outlive_their_options(model, inputs):
    options = onnxruntime.SessionOptions()
    ort_roialign.register(options)
    session = plain_session(model, options)
    del options
    assert session.run(None, inputs)[0].shape == (8, 3, 3, 4)


@pytest.mark.parametrize("form", ["path", "path object", "bytes", "proto"])
def test_inference_session_takes_every_form_of_model(tmp_path, model, inputs, form):
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    forms = {
        "path": str(path),
        "path object": path,
        "bytes": path.read_bytes(),
        "proto": model,
    }
    session = ort_roialign.InferenceSession(forms[form], providers=CPU)
    assert isinstance(session, onnxruntime.InferenceSession)
    assert session.get_providers() == CPU
    assert session.run(None, inputs)[0].shape == (8, 3, 3, 4)


@pytest.fixture
def session_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes onnxruntime's sessions dictionaries of their arguments."""
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **arguments: arguments)


@pytest.mark.usefixtures("session_arguments")
def test_inference_session_passes_arguments_on(model, options):
    arguments = ort_roialign.InferenceSession(model, CPU, options, enable_fallback=0)
    assert arguments == {"sess_options": options, "providers": CPU, "enable_fallback": 0}


@pytest.mark.usefixtures("session_arguments")
@pytest.mark.parametrize(
    ("available", "chosen"),
    [
        (["AzureExecutionProvider", *CPU], CPU),
        (
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", *CPU],
            ["CUDAExecutionProvider", *CPU],
        ),
        ([*CPU, "CUDAExecutionProvider"], ["CUDAExecutionProvider", *CPU]),
    ],
)
def test_inference_session_prefers_cuda(monkeypatch, model, available, chosen):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    arguments = ort_roialign.InferenceSession(model)
    assert arguments["providers"] == chosen


def test_inference_session_takes_providers_with_options(model, inputs):
    session = ort_roialign.InferenceSession(model, [("CPUExecutionProvider", {})])
    assert session.run(None, inputs)[0].shape == (8, 3, 3, 4)


def models_of_other_domains() -> dict[str, onnx.ModelProto]:
    """A model for each further domain that onnxruntime cannot run by itself."""
    models = {}
    for choice, operator, domain, opset, rois_columns, names in (
        ("onnx", "RoiAlign", "", 22, 4, ["X", "rois", "batch_indices"]),
        ("mmcv", "PrRoIPool", "mmcv", 16, 5, ["X", "rois"]),
        ("mmdeploy", "MMCVRoIAlignRotated", "mmdeploy", 16, 6, ["X", "rois"]),
    ):
        shapes = [[None] * 4, [None, rois_columns], [None]]
        types = [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64]
        values = [
            onnx.helper.make_tensor_value_info(name, type_, shape)
            for name, type_, shape in zip(names, types, shapes, strict=False)
        ]
        node = onnx.helper.make_node(operator, names, ["Y"], domain=domain)
        output = onnx.helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, None)
        imports = {"": opset, domain: opset if domain == "" else 1}
        models[choice] = onnx.helper.make_model(
            onnx.helper.make_graph([node], "graph", values, [output]),
            opset_imports=[onnx.helper.make_opsetid(*each) for each in imports.items()],
            ir_version=9,
        )
    return models


def knows(options: onnxruntime.SessionOptions, choice: str) -> bool:
    """Whether sessions of these options load the model of a further domain."""
    try:
        plain_session(models_of_other_domains()[choice], options)
    except Exception:
        return False
    return True


def known_domains(options: onnxruntime.SessionOptions) -> set[str]:
    return {choice for choice in models_of_other_domains() if knows(options, choice)}


def test_further_domains_are_registered_on_request_only(options):
    ort_roialign.register(options)
    assert known_domains(options) == set()


@pytest.mark.parametrize(
    ("domains", "known"),
    [
        ("onnx", {"onnx"}),
        (["mmcv", "mmdeploy"], {"mmcv", "mmdeploy"}),
        (("mmdeploy", "onnx-all", "mmcv", "mmcv"), {"onnx", "mmcv", "mmdeploy"}),
    ],
)
def test_further_domains(model, options, inputs, domains, known):
    for _ in range(2):
        ort_roialign.register(options, domains=domains)
        assert known_domains(options) == known
    (y,) = plain_session(model, options).run(None, inputs)
    assert y.shape == (8, 3, 3, 4)


def test_further_domains_can_be_added_later(options):
    ort_roialign.register(options)
    ort_roialign.register(options, ["mmcv"])
    assert known_domains(options) == {"mmcv"}
    ort_roialign.register(options, ["onnx", "mmcv"])
    ort_roialign.register(options)
    assert known_domains(options) == {"onnx", "mmcv"}


def test_inference_session_with_further_domains():
    for choice, model in models_of_other_domains().items():
        session = ort_roialign.InferenceSession(model, CPU, domains=[choice])
        assert session.get_providers() == CPU


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            [],
            ["onnx", "nix"],
            "must be names among onnx, onnx-all, onnx-10, mmcv, mmdeploy, separated by commas; "
            'got "nix"',
        ),
        (
            [],
            ["onnx", "onnx-all"],
            "must have one of onnx and onnx-all, which replace the same operators; got both",
        ),
        (
            ["onnx-10", "mmcv"],
            ["onnx"],
            "must have one of onnx-10 and onnx, which replace the same operators; got both",
        ),
    ],
)
def test_domains_that_cannot_be(options, first, second, message):
    ort_roialign.register(options, first)
    before = known_domains(options)
    with pytest.raises(InvalidArgumentError) as raised:
        ort_roialign.register(options, second)
    text = str(raised.value)
    assert text.startswith(f"register: domains cannot be {second}: ")
    assert text.endswith(f"ort_roialign: session config entry ort_roialign.domains {message}")
    # Nothing was registered on the way, and the options can still be used.
    assert known_domains(options) == before
    ort_roialign.register(options, ["mmdeploy"])
    assert known_domains(options) == before | {"mmdeploy"}


@pytest.mark.parametrize("way", [by_function, by_library])
def test_domains_of_the_session_config(options, way):
    options.add_session_config_entry("ort_roialign.domains", " mmcv , onnx")
    way(options)
    assert known_domains(options) == {"onnx", "mmcv"}


@pytest.mark.parametrize("way", [by_function, by_library])
def test_unknown_domains_of_the_session_config_are_refused(options, way):
    options.add_session_config_entry("ort_roialign.domains", "onnx, caffe")
    with pytest.raises(Exception, match="session config entry") as raised:
        way(options)
    assert str(raised.value).endswith('mmdeploy, separated by commas; got "caffe"')


@pytest.mark.parametrize("empty", ["", " ", ","])
def test_empty_domains_of_the_session_config_are_fine(model, options, inputs, empty):
    options.add_session_config_entry("ort_roialign.domains", empty)
    ort_roialign.register(options)
    assert plain_session(model, options).run(None, inputs)[0].shape == (8, 3, 3, 4)


def test_library_of_the_environment(monkeypatch, tmp_path, model, options, inputs):
    copy = tmp_path / "elsewhere.so"
    shutil.copy(ort_roialign.get_library_path(), copy)
    monkeypatch.setenv("ORT_ROIALIGN_LIBRARY", str(copy))
    assert ort_roialign.get_library_path() == str(copy.resolve())
    assert ort_roialign.build_info()["operators"]
    ort_roialign.register(options)
    assert plain_session(model, options).run(None, inputs)[0].shape == (8, 3, 3, 4)
    assert str(copy) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("name", ["absent.so", "."])
def test_library_of_the_environment_that_is_no_file(monkeypatch, tmp_path, options, name):
    path = tmp_path / name
    monkeypatch.setenv("ORT_ROIALIGN_LIBRARY", str(path))
    for call in (
        ort_roialign.get_library_path,
        ort_roialign.build_info,
        lambda: ort_roialign.register(options),
    ):
        with pytest.raises(LibraryNotFoundError) as raised:
            call()
        assert str(raised.value) == (
            f"ORT_ROIALIGN_LIBRARY must name the shared library of ort_roialign; got {path}"
        )


def test_library_missing_from_the_installation(monkeypatch):
    monkeypatch.delenv("ORT_ROIALIGN_LIBRARY", raising=False)
    monkeypatch.setattr("ort_roialign._library._LIBRARY_NAME", "libabsent.so")
    with pytest.raises(
        LibraryNotFoundError, match=r"^libabsent\.so was not found in .*pip install"
    ):
        ort_roialign.get_library_path()


@pytest.mark.parametrize("kind", ["text", "another library"])
def test_file_that_is_another_library(monkeypatch, tmp_path, kind):
    path = tmp_path / "other.so"
    if kind == "text":
        path.write_text("not a library")
    else:
        other = next(Path(np.__file__).parent.rglob("_multiarray_umath*.so"))
        shutil.copy(other, path)
    monkeypatch.setenv("ORT_ROIALIGN_LIBRARY", str(path))
    with pytest.raises(OrtRoiAlignError, match=rf"^{path} is not a library of ort_roialign: "):
        ort_roialign.build_info()


def test_onnxruntime_is_missing(monkeypatch, options, model):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for call in (
        lambda: ort_roialign.register(options),
        lambda: ort_roialign.InferenceSession(model),
    ):
        with pytest.raises(MissingDependencyError) as raised:
            call()
        assert str(raised.value) == (
            "onnxruntime is not installed; in the directory of ort_roialign's sources install it "
            "with `pip install '.[cpu]'`, or for NVIDIA GPUs with `pip install '.[gpu]'`"
        )
        assert isinstance(raised.value, ImportError)


@pytest.mark.parametrize("version", ["1.17.3", "1.9.0", "0.99.1"])
def test_onnxruntime_is_too_old(monkeypatch, options, version):
    monkeypatch.setattr(onnxruntime, "__version__", version)
    with pytest.raises(OrtRoiAlignError) as raised:
        ort_roialign.register(options)
    assert str(raised.value) == f"onnxruntime 1.18 or newer is required; got {version}"


@pytest.mark.parametrize("version", ["1.18.0", "1.100.0", "2.0.0", "1.32.0.dev20260101+cu13"])
def test_onnxruntime_is_new_enough(monkeypatch, options, version):
    monkeypatch.setattr(onnxruntime, "__version__", version)
    ort_roialign.register(options)


def run_python(code: str, *arguments: str) -> None:
    """Runs Python in a process of its own, which must end in order and say nothing."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"ORT_ROIALIGN_LIBRARY": ort_roialign.get_library_path()},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_package_needs_no_onnxruntime_until_a_session_is_made():
    run_python(
        "import sys, ort_roialign\n"
        "assert ort_roialign.build_info()['operators']\n"
        "assert ort_roialign.get_library_path()\n"
        "assert 'onnxruntime' not in sys.modules\n"
    )


@pytest.mark.parametrize("end", ["", "del session, options", "del other"])
def test_process_exits_in_order(tmp_path, model, inputs, end):
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **inputs)
    run_python(
        "import sys, numpy as np, onnxruntime, ort_roialign\n"
        "options = onnxruntime.SessionOptions()\n"
        "session = ort_roialign.InferenceSession(\n"
        "    sys.argv[1], ['CPUExecutionProvider'], session_options=options)\n"
        "other = ort_roialign.InferenceSession(sys.argv[1], ['CPUExecutionProvider'])\n"
        "inputs = dict(np.load(sys.argv[2]))\n"
        "assert session.run(None, inputs)[0].any()\n"
        "assert ort_roialign.build_info()\n" + end,
        str(tmp_path / "model.onnx"),
        str(tmp_path / "inputs.npz"),
    )
