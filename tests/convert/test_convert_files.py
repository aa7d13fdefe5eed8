"""Files: weights beside them, what is refused, and that nothing unfinished is left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tolerances
from hand_made import POOLED_INPUTS, draw, model_of, roi_align_model
from onnx import TensorProto, helper

import ort_roialign
from ort_roialign.convert import convert_file
from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError

KERNEL = tolerances.KERNEL["float32"]
WEIGHTS = np.random.default_rng(5).standard_normal((3, 20, 24)).astype(np.float32)
_MORE_THAN_PROTOBUF_TAKES = 2**31 + 2**20


def weighted_model() -> onnx.ModelProto:
    """A RoiAlign of a map with weights added to it."""
    nodes = [
        helper.make_node("Add", ["x", "weights"], ["sum"]),
        helper.make_node("RoiAlign", ["sum", "rois", "images"], ["y"], output_height=3),
    ]
    return model_of(nodes, POOLED_INPUTS, {"weights": WEIGHTS})


def save_with_weights(path: Path, data: str) -> Path:
    onnx.save(weighted_model(), path, save_as_external_data=True, location=data, size_threshold=0)
    return path


def name_weights(path: Path, location: str) -> None:
    """Write where a model's weights are, unchecked."""
    model = onnx.load(path, load_external_data=False)
    (entry,) = [e for e in model.graph.initializer[0].external_data if e.key == "location"]
    entry.value = location
    onnx.save(model, path)


def run_file(path: Path, rng: np.random.Generator) -> np.ndarray:
    session = ort_roialign.InferenceSession(path, ["CPUExecutionProvider"])
    (pooled,) = session.run(None, draw(rng))
    return pooled


def files_of(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_file_without_weights(tmp_path):
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(roi_align_model(16), source)
    before = source.read_bytes()
    report = convert_file(source, target)
    assert report.counts == {("ai.onnx::RoiAlign", "RoiAlign"): 1}
    assert files_of(tmp_path) == {"in.onnx", "out.onnx"}
    assert source.read_bytes() == before
    rng = np.random.default_rng(1)
    expected = run_file(source, np.random.default_rng(1))
    np.testing.assert_allclose(run_file(target, rng), expected, *KERNEL)


def test_weights_in_a_file_stay_in_one(tmp_path):
    directory = tmp_path / "other"
    directory.mkdir()
    source = save_with_weights(tmp_path / "in.onnx", "weights.bin")
    target = directory / "out.onnx"
    convert_file(source, target)
    assert files_of(directory) == {"out.onnx", "out.onnx.data"}
    assert files_of(tmp_path) == {"in.onnx", "weights.bin", "other"}
    (tensor,) = onnx.load(target, load_external_data=False).graph.initializer
    assert {e.key: e.value for e in tensor.external_data}["location"] == "out.onnx.data"
    expected = run_file(source, np.random.default_rng(1))
    np.testing.assert_allclose(run_file(target, np.random.default_rng(1)), expected, *KERNEL)


def test_a_target_is_replaced(tmp_path):
    source = save_with_weights(tmp_path / "in.onnx", "weights.bin")
    target = tmp_path / "out.onnx"
    target.write_bytes(b"an older file")
    convert_file(source, target)
    onnx.checker.check_model(str(target))


def linked(link: Callable[[Path, Path], None]) -> Callable[[Path], tuple[Path, Path]]:
    def make(directory: Path) -> tuple[Path, Path]:
        source, target = directory / "in.onnx", directory / "out.onnx"
        onnx.save(roi_align_model(16), source)
        link(source, target)
        return source, target

    return make


def same_path(directory: Path) -> tuple[Path, Path]:
    source = directory / "in.onnx"
    onnx.save(roi_align_model(16), source)
    (directory / "sub").mkdir()
    return source, directory / "sub" / ".." / "in.onnx"


def weights_are_the_target(directory: Path) -> tuple[Path, Path]:
    return save_with_weights(directory / "in.onnx", "out.onnx"), directory / "out.onnx"


def weights_are_the_new_weights(directory: Path) -> tuple[Path, Path]:
    return save_with_weights(directory / "in.onnx", "out.onnx.data"), directory / "out.onnx"


@pytest.mark.parametrize(
    "make",
    [
        same_path,
        linked(lambda source, target: target.symlink_to(source)),
        linked(os.link),
        weights_are_the_target,
        weights_are_the_new_weights,
    ],
    ids=["same path", "symbolic link", "hard link", "weights", "weights of the new file"],
)
def test_the_source_is_never_written_over(tmp_path, make):
    source, target = make(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(InvalidArgumentError, match="target must not be one of the source's files"):
        convert_file(source, target)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_what_does_not_load_is_not_left_behind(tmp_path):
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    nodes = [
        helper.make_node("RoiAlign", ["x", "rois", "images"], ["pooled"]),
        helper.make_node("Unheard", ["pooled"], ["y"], domain="nobodys"),
    ]
    onnx.save(model_of(nodes, POOLED_INPUTS), source)
    target.write_bytes(b"an older file")
    with pytest.raises(OrtRoiAlignError, match="can load neither model, so it was not written"):
        convert_file(source, target)
    assert target.read_bytes() == b"an older file"
    assert files_of(tmp_path) == {"in.onnx", "out.onnx"}


def test_what_a_kernel_refuses_is_left(tmp_path):
    source = tmp_path / "in.onnx"
    onnx.save(roi_align_model(16, sampling_ratio=-3), source)
    report = convert_file(source, tmp_path / "out.onnx")
    assert not report.converted
    assert "attribute sampling_ratio must be at least 0" in report.left[0].reason
    assert files_of(tmp_path) == {"in.onnx"}


def test_nothing_to_convert_writes_nothing(tmp_path):
    source = tmp_path / "in.onnx"
    onnx.save(model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": POOLED_INPUTS["x"]}), source)
    assert not convert_file(source, tmp_path / "out.onnx").converted
    assert files_of(tmp_path) == {"in.onnx"}


def test_a_source_that_the_checker_refuses_is_converted(tmp_path):
    """Outputs without a shape do not keep onnxruntime from loading a model."""
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    model = roi_align_model(16)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)
    onnx.save(model, source)
    assert convert_file(source, target).converted
    assert target.is_file()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("missing.onnx", "source must be an ONNX file; got"),
        ("text.onnx", "source must be an ONNX file; .*text.onnx cannot be read"),
        ("alone.onnx", "source must have its weights beside it; .*weights.bin of .* is missing"),
    ],
)
def test_bad_sources(tmp_path, name, text):
    (tmp_path / "text.onnx").write_text("no model\n" * 9)
    save_with_weights(tmp_path / "alone.onnx", "weights.bin")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InvalidArgumentError, match=f"convert_file: {text}"):
        convert_file(tmp_path / name, tmp_path / "out.onnx")


def test_weights_that_are_links_as_download_caches_have_them(tmp_path):
    blobs, cache, target = tmp_path / "blobs", tmp_path / "cache", tmp_path / "out.onnx"
    blobs.mkdir()
    cache.mkdir()
    save_with_weights(blobs / "0f", "weights.bin")
    (blobs / "weights.bin").rename(blobs / "1e")
    (cache / "model.onnx").symlink_to(blobs / "0f")
    (cache / "weights.bin").symlink_to(blobs / "1e")
    convert_file(cache / "model.onnx", target)
    assert files_of(blobs) == {"0f", "1e"}
    shutil.copy(blobs / "0f", tmp_path / "plain.onnx")
    shutil.copy(blobs / "1e", tmp_path / "weights.bin")
    expected = run_file(tmp_path / "plain.onnx", np.random.default_rng(1))
    np.testing.assert_allclose(run_file(target, np.random.default_rng(1)), expected, *KERNEL)


def test_weights_in_a_directory_of_two_dots_and_a_name(tmp_path):
    """As Kubernetes mounts files."""
    (tmp_path / "..data").mkdir()
    source = save_with_weights(tmp_path / "in.onnx", "weights.bin")
    (tmp_path / "weights.bin").rename(tmp_path / "..data" / "weights.bin")
    name_weights(source, "..data/weights.bin")
    convert_file(source, tmp_path / "out.onnx")
    assert files_of(tmp_path) == {"in.onnx", "..data", "out.onnx", "out.onnx.data"}


@pytest.mark.parametrize("place", ["../weights.bin", "/weights.bin", "below/../../weights.bin"])
def test_weights_that_a_model_looks_for_elsewhere(tmp_path, place):
    (tmp_path / "models").mkdir()
    source = save_with_weights(tmp_path / "models" / "in.onnx", "weights.bin")
    (tmp_path / "models" / "weights.bin").rename(tmp_path / "weights.bin")
    (tmp_path / "models" / "below").mkdir()
    name_weights(source, str(tmp_path / "weights.bin") if place.startswith("/") else place)
    with pytest.raises(InvalidArgumentError, match="must have its weights in its directory"):
        convert_file(source, tmp_path / "out.onnx")


def test_weights_of_a_constant_node(tmp_path):
    model = weighted_model()
    tensor = model.graph.initializer.pop()
    node = helper.make_node("Constant", [], ["weights"], value=tensor)
    model.graph.node.insert(0, node)
    plain, source, target = (tmp_path / f"{name}.onnx" for name in ("plain", "in", "out"))
    onnx.save(model, plain)
    onnx.save(
        model,
        source,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    assert (tmp_path / "weights.bin").stat().st_size == WEIGHTS.nbytes
    convert_file(source, target)
    expected = run_file(plain, np.random.default_rng(1))
    np.testing.assert_allclose(run_file(target, np.random.default_rng(1)), expected, *KERNEL)


def test_a_target_that_is_a_directory(tmp_path):
    source = save_with_weights(tmp_path / "in.onnx", "weights.bin")
    (tmp_path / "models").mkdir()
    with pytest.raises(InvalidArgumentError, match=r"got '.*models', which is a directory"):
        convert_file(source, tmp_path / "models")
    assert files_of(tmp_path) == {"in.onnx", "weights.bin", "models"}


def test_a_target_in_no_directory(tmp_path):
    onnx.save(roi_align_model(16), tmp_path / "in.onnx")
    with pytest.raises(InvalidArgumentError, match="must be a file in a directory that exists"):
        convert_file(tmp_path / "in.onnx", tmp_path / "nowhere" / "out.onnx")


def test_with_a_fallback_the_file_runs_without_the_plugin(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("torchvision")
    source = save_with_weights(tmp_path / "in.onnx", "weights.bin")
    target = tmp_path / "out.onnx"
    convert_file(source, target, fallback=True)
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, draw(np.random.default_rng(1)))
    expected = run_file(source, np.random.default_rng(1))
    np.testing.assert_allclose(actual, expected, *KERNEL)


@pytest.mark.unsanitized
def test_a_model_that_protobuf_could_not_hold(tmp_path):
    """The weights are a file of zeros that takes no room; the copy of them is not."""
    if shutil.disk_usage(tmp_path).free < 2 * _MORE_THAN_PROTOBUF_TAKES:
        pytest.skip("no room for 4 GiB on the disk of temporary files")
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    nodes = [
        helper.make_node("Gather", ["large", "place"], ["element"]),
        helper.make_node("Add", ["x", "element"], ["sum"]),
        helper.make_node("RoiAlign", ["sum", "rois", "images"], ["y"], output_height=3),
    ]
    model = model_of(nodes, POOLED_INPUTS, {"place": np.array(7, np.int64)})
    large = model.graph.initializer.add(
        name="large",
        data_type=TensorProto.FLOAT,
        dims=[_MORE_THAN_PROTOBUF_TAKES // 4],
        data_location=TensorProto.EXTERNAL,
    )
    large.external_data.add(key="location", value="large.bin")
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(_MORE_THAN_PROTOBUF_TAKES)
        file.seek(4 * 7)
        file.write(np.float32(2.5).tobytes())
    onnx.save(model, source)
    convert_file(source, target)
    assert (tmp_path / "out.onnx.data").stat().st_size >= _MORE_THAN_PROTOBUF_TAKES
    assert target.stat().st_size < 10_000
    small = model_of(
        nodes, POOLED_INPUTS, {"place": np.array(0, np.int64), "large": np.float32([2.5])}
    )
    onnx.save(small, tmp_path / "small.onnx")
    expected = run_file(tmp_path / "small.onnx", np.random.default_rng(1))
    actual = run_file(target, np.random.default_rng(1))
    np.testing.assert_allclose(actual, expected, *KERNEL)
    for name in ("large.bin", "out.onnx.data"):
        (tmp_path / name).unlink()  # pytest keeps the directories of its last runs
