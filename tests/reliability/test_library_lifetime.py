"""The library in a process: it stays loaded, and does not mix with another build of itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import onnxruntime
import pytest
from plugin import Device

import ort_roialign
from ort_roialign.errors import InvalidArgumentError

# ONNX Runtime unloads a library with the last options or session that holds it.
LOAD_AND_LET_GO = """
import onnxruntime, ort_roialign
options = onnxruntime.SessionOptions()
ort_roialign.register(options)
del options
path = ort_roialign.get_library_path()
print(path in open("/proc/self/maps").read())
"""


def test_library_stays_loaded():
    done = subprocess.run(
        [sys.executable, "-c", LOAD_AND_LET_GO],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"ORT_ROIALIGN_LIBRARY": ort_roialign.get_library_path()},
    )
    # Were it unloaded, each load would leave the operators of the last one behind.
    assert done.stdout.strip() == "True"


def test_second_library_is_refused(tmp_path, cpu_device: Device):
    copy = tmp_path / "copy_of_the_library.so"
    shutil.copy(cpu_device.library, copy)
    options = onnxruntime.SessionOptions()
    ort_roialign.register(options)
    with pytest.raises(Exception, match="must have one library of ort_roialign") as caught:
        options.register_custom_ops_library(str(copy))
    assert cpu_device.library in str(caught.value)
    assert str(copy) in str(caught.value)


@pytest.mark.parametrize("wrong", ["x", None, onnxruntime.SessionOptions])
def test_session_options_of_another_type_are_refused(wrong):
    with pytest.raises(
        InvalidArgumentError, match="register: session_options must be an"
    ) as caught:
        ort_roialign.register(wrong)
    assert repr(wrong) in str(caught.value)


def test_session_options_where_onnxruntime_takes_them():
    options = onnxruntime.SessionOptions()
    for arguments, keywords in (((b"", options), {}), ((b"",), {"sess_options": options})):
        with pytest.raises(InvalidArgumentError, match="given as session_options="):
            ort_roialign.InferenceSession(*arguments, **keywords)
