"""Operators of other domains in a session: which are asked for, and which are there."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
from registering import CPU, by_function, by_library, plain_session

import ort_roialign
from ort_roialign.errors import InvalidArgumentError


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


@pytest.mark.parametrize(
    "domains", [5, None, [3], [None], ["mmcv", b"onnx"], [["mmcv"]], 2.5, b"mmcv", object]
)
@pytest.mark.parametrize("caller", ["register", "InferenceSession"])
def test_domains_that_are_no_names(model, options, caller, domains):
    calls = {
        "register": lambda: ort_roialign.register(options, domains=domains),
        "InferenceSession": lambda: ort_roialign.InferenceSession(
            model, CPU, options, domains=domains
        ),
    }
    with pytest.raises(InvalidArgumentError) as raised:
        calls[caller]()
    assert str(raised.value) == (
        f'{caller}: domains must be a name or several, such as ["mmcv", "mmdeploy"]; '
        f"got {domains!r}"
    )
    with pytest.raises(Exception, match="ort_roialign"):  # nothing was registered
        plain_session(model, options)


@pytest.mark.parametrize("domains", ["mmcv", "mmcv, mmdeploy", ["mmcv,mmdeploy"], iter(["mmcv"])])
def test_one_text_names_a_domain_or_several(options, domains):
    several = "mmdeploy" in str(domains)
    ort_roialign.register(options, domains)
    assert known_domains(options) == ({"mmcv", "mmdeploy"} if several else {"mmcv"})


def test_registering_again_makes_onnxruntime_say_nothing(capfd):
    options = onnxruntime.SessionOptions()
    ort_roialign.register(options, ["mmcv", "onnx"])
    for domains in (["mmcv", "onnx"], ["onnx"], "mmcv", ["onnx", "mmcv"], []):
        ort_roialign.register(options, domains)
    assert capfd.readouterr().err == ""
    assert known_domains(options) == {"onnx", "mmcv"}
