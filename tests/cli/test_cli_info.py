"""`ort-roialign info` tells the truth about the installation, and names what is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import onnxruntime
import pytest
from typer.testing import CliRunner

import ort_roialign
from ort_roialign.cli.app import app

# Wide enough that no cell is folded.
WIDE = {"COLUMNS": "250"}
WITH_CUDA = {"cuda": True, "cuda_version": "13.0", "cuda_architectures": ["75", "90"]}


def invoke(*arguments):
    return CliRunner().invoke(app, ["info", *arguments], env=WIDE)


def assert_fails_with_text_only(result):
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output


def test_the_tables_show_library_onnxruntime_and_operators():
    library = ort_roialign.build_info()
    result = invoke()
    assert result.exit_code == 0, result.output
    for fact in (
        ort_roialign.__version__,
        ort_roialign.get_library_path(),
        f"{onnxruntime.__version__} (supported; at least 1.18 is needed)",
        ", ".join(onnxruntime.get_available_providers()),
        f"{ort_roialign.cpu_state()['isa']}, of {', '.join(library['cpu_isas'])}",
    ):
        assert fact in result.output
    rows = [line.split() for line in result.output.splitlines()]
    for operator in library["operators"]:
        row = next(row for row in rows if operator["name"] in row)
        text = " ".join(row)
        assert ", ".join(operator["types"]) in text
        assert ", ".join(operator["inputs"]) in text
        assert "CPU" in text
    assert "RoiAlign" in [operator["name"] for operator in library["operators"]]


@pytest.mark.parametrize(
    ("cuda", "text"),
    [
        ({"cuda": False}, "CPU only: built without CUDA kernels"),
        (WITH_CUDA, "yes, CUDA 13.0, architectures 75, 90"),
    ],
)
def test_whether_there_are_cuda_kernels_is_said(monkeypatch, cuda, text):
    facts = {**ort_roialign.build_info(), **cuda}
    monkeypatch.setattr(ort_roialign, "build_info", lambda: facts)
    assert text in invoke().output


@pytest.mark.parametrize("usable", [False, True])
def test_cuda_kernels_that_onnxruntime_cannot_use_are_called_so(monkeypatch, usable):
    facts = {**ort_roialign.build_info(), **WITH_CUDA}
    providers = ["CUDAExecutionProvider"] * usable + ["CPUExecutionProvider"]
    monkeypatch.setattr(ort_roialign, "build_info", lambda: facts)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    text = "this onnxruntime cannot use them: install onnxruntime-gpu"
    assert (text in invoke().output) is not usable


def test_json_holds_what_the_library_says():
    result = invoke("--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["library"] == ort_roialign.build_info()
    assert facts["library_path"] == ort_roialign.get_library_path()
    assert facts["onnxruntime"] == {
        "installed": True,
        "version": onnxruntime.__version__,
        "supported": True,
        "providers": onnxruntime.get_available_providers(),
    }


def test_without_onnxruntime_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = invoke()
    assert result.exit_code == 0, result.output
    assert "not installed; install it in the directory of ort_roialign's sources" in result.output
    assert "pip install '.[cpu]'" in result.output
    assert json.loads(invoke("--json").stdout)["onnxruntime"] == {"installed": False}


def test_an_onnxruntime_that_is_too_old_is_called_so(monkeypatch):
    monkeypatch.setattr(onnxruntime, "__version__", "1.17.3")
    result = invoke()
    assert result.exit_code == 0, result.output
    assert "1.17.3: too old, at least 1.18 is needed" in result.output


def test_a_missing_library_ends_with_a_message(monkeypatch, tmp_path):
    monkeypatch.setenv("ORT_ROIALIGN_LIBRARY", str(tmp_path / "absent.so"))
    for arguments in ([], ["--json"]):
        result = invoke(*arguments)
        assert_fails_with_text_only(result)
        assert "absent.so" in result.stderr
        assert result.stdout == ""


def test_a_file_that_is_no_library_ends_with_a_message(monkeypatch, tmp_path):
    text = tmp_path / "text.so"
    text.write_text("not a library")
    monkeypatch.setenv("ORT_ROIALIGN_LIBRARY", str(text))
    result = invoke()
    assert_fails_with_text_only(result)
    assert "text.so" in result.stderr


def test_the_package_runs_as_a_module_without_importing_torch():
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['ort-roialign', 'info', '--json']\n"
        "from ort_roialign.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["package_version"] == ort_roialign.__version__
    for module in ("ort_roialign", "ort_roialign.cli"):
        usage = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False
        )
        assert usage.returncode == 0, usage.stderr
        assert "demo" in usage.stdout


def test_the_version_is_that_of_the_package():
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0, result.output
    assert result.output == f"ort_roialign {ort_roialign.__version__}\n"
