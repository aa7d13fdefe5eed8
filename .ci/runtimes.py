"""Tries the built library on other releases of ONNX Runtime.

`prepare DIR` writes models and the results expected of them; `run DIR LIBRARY` runs them with
whatever onnxruntime is installed, and needs nothing else but NumPy.
"""

import re
import sys
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import tolerances

ATTRIBUTES = {"output_height": 7, "output_width": 5, "spatial_scale": 0.125}
LEVELS = {
    "output_height": 7,
    "output_width": 5,
    "spatial_scales": [0.125, 0.0625, 0.03125],
    "canonical_scale": 100.0,
}
CASES = {
    "RoiAlign_avg": ("RoiAlign", {**ATTRIBUTES, "mode": "avg"}),
    "RoiAlign_max": ("RoiAlign", {**ATTRIBUTES, "mode": "max", "sampling_ratio": 2}),
    "RoiAlignGrad": ("RoiAlignGrad", {**ATTRIBUTES, "mode": "max"}),
    "RoiPool": ("RoiPool", ATTRIBUTES),
    "RoiPoolGrad": ("RoiPoolGrad", ATTRIBUTES),
    "MultiScaleRoiAlign": ("MultiScaleRoiAlign", LEVELS),
    "MultiScaleRoiAlignGrad": ("MultiScaleRoiAlignGrad", LEVELS),
    "PrRoiPoolGrad": ("PrRoiPoolGrad", ATTRIBUTES),
    "DeformRoiPool": ("DeformRoiPool", ATTRIBUTES),
    "DeformRoiPoolGrad": ("DeformRoiPoolGrad", ATTRIBUTES),
    "PasteMasks": ("PasteMasks", {"padding": 2}),
    "PasteMasks_threshold": ("PasteMasks", {"threshold": 0.5}),
}
PASTE_MASKS_INPUTS = ("masks", "boxes", "image_size")
# For RoI operators, and for PasteMasks.
BAD_INPUTS = (
    ("batch_indices", 7, "batch_indices[0] must be in [0, 2)"),
    ("image_size", -1, "image_size must be height and width of 0 to 1073741824; got [-1, -1]"),
)
BAD_ATTRIBUTE = ("RoiAlign", {"mode": "median"})


def prepare(directory: Path) -> None:
    """Writes `<case>.onnx` and `<case>.npz` with inputs and NumPy's results."""
    import onnx
    from plugin import INPUTS, OUTPUTS, make_model, make_paste_masks_model

    import ort_roialign

    directory.mkdir(parents=True)
    values = draw()
    for case, (operator, attributes) in CASES.items():
        pastes = operator == "PasteMasks"
        names = PASTE_MASKS_INPUTS if pastes else INPUTS[operator]
        inputs = {name: values[name] for name in names}
        function = getattr(ort_roialign.reference, re.sub(r"\B([A-Z])", r"_\1", operator).lower())
        results = function(*inputs.values(), **attributes)
        results = results if isinstance(results, (tuple, list)) else (results,)
        types = {name: value.dtype for name, value in inputs.items()}
        shapes = {
            name: [f"{name}_{axis}" for axis in range(value.ndim)] for name, value in inputs.items()
        }
        model = (
            make_paste_masks_model(inputs["masks"], inputs["boxes"], attributes)
            if pastes
            else make_model(operator, attributes, types, shapes)
        )
        onnx.save(model, directory / f"{case}.onnx")
        outputs = ("Y",) if pastes else OUTPUTS[operator]
        expected = {f"expected_{name}": r for name, r in zip(outputs, results, strict=True)}
        np.savez(directory / f"{case}.npz", **inputs, **expected)
    operator, attributes = BAD_ATTRIBUTE
    types = {name: values[name].dtype for name in INPUTS[operator]}
    onnx.save(make_model(operator, attributes, types), directory / "bad_attribute.onnx")


def draw() -> dict[str, Any]:
    """Draws every input that a case may have."""
    rng = np.random.default_rng(20)
    values: dict[str, Any] = {
        "X": rng.standard_normal((2, 20, 30, 40), dtype=np.float32),
        "rois": np.sort(rng.uniform(-20, 330, (50, 2, 2)), axis=1).reshape(50, 4).astype("f4"),
        "batch_indices": rng.integers(0, 2, 50),
        "dY": rng.standard_normal((50, 20, 7, 5), dtype=np.float32),
        "offset": rng.standard_normal((50, 2, 7, 5), dtype=np.float32),
        "masks": rng.random((9, 1, 14, 14), dtype=np.float32),
        "boxes": np.sort(rng.uniform(-9, 70, (9, 2, 2)), axis=1).reshape(9, 4).astype("f4"),
        "image_size": np.array([48, 61]),
    }
    for number, size in enumerate(((30, 40), (15, 20), (8, 10))):
        values[f"X{number}"] = rng.standard_normal((2, 20, *size), dtype=np.float32)
    return values


def run(directory: Path, library: str) -> None:
    """Runs every case, and checks results, shapes' names and errors."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(library)
    options.register_custom_ops_library(library)  # the second time does nothing
    providers = ["CPUExecutionProvider"]
    for case in CASES:
        values = dict(np.load(directory / f"{case}.npz"))
        path = str(directory / f"{case}.onnx")
        if case == "PasteMasks_threshold" and onnxruntime.__version__.startswith("1.18."):
            # It takes an output's type from the inputs' alone.
            expect_error("tensor(uint8)", onnxruntime.InferenceSession, path, options, providers)
            continue
        session = onnxruntime.InferenceSession(path, options, providers=providers)
        feeds = {item.name: values[item.name] for item in session.get_inputs()}
        for output, result in zip(session.get_outputs(), session.run(None, feeds), strict=True):
            expected = values[f"expected_{output.name}"]
            np.testing.assert_allclose(result, expected, *tolerances.GRADIENT["float32"])
            assert (result.dtype == np.uint8) == (expected.dtype == np.uint8), result.dtype
            assert output.shape[1] == second_axis(output.name, feeds), output.shape
        name, bad, message = BAD_INPUTS["masks" in feeds]
        expect_error(message, session.run, None, {**feeds, name: np.full_like(feeds[name], bad)})
    bad = str(directory / "bad_attribute.onnx")
    expect_error(
        'attribute mode must be "avg" or "max"; got "median"',
        lambda: onnxruntime.InferenceSession(bad, options, providers=providers),
    )
    available = onnxruntime.get_available_providers()
    print(f"onnxruntime {onnxruntime.__version__} {available}: {len(CASES)} models agree")


def second_axis(output: str, inputs: Container[str]) -> str | int:
    """The name of an output's second axis: that of the maps, or of what it is the gradient of."""
    if "masks" in inputs:
        return 1
    like = output[1:] if output.startswith("d") else "X" if "X" in inputs else "X0"
    return 2 if like == "offset" else f"{like}_1"


def expect_error(text: str, action: Callable[..., object], *arguments: object) -> None:
    """Fails unless the action raises an error with this text."""
    try:
        action(*arguments)
    except Exception as error:
        if text in str(error):
            return
        raise
    raise AssertionError(f"no error with {text!r}")


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]))
    else:
        run(Path(sys.argv[2]), sys.argv[3])
