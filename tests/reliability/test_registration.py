"""How a session gets the operators: the package's functions, and the library without them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.testing import assert_array_equal
from registering import CPU, by_function, by_library, plain_session

import ort_roialign
from ort_roialign.errors import (
    LibraryNotFoundError,
    MissingDependencyError,
    OrtRoiAlignError,
)


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
