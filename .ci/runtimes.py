"""Tries the built library on other releases of ONNX Runtime.

`prepare DIR` writes models and the results expected of them; `run DIR LIBRARY` runs them with
whatever onnxruntime is installed, and needs nothing else but NumPy.
"""

import re
import sys
from collections.abc import Callable, Container
from pathlib import Path

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
}
BAD_ATTRIBUTE = ("RoiAlign", {"mode": "median"})


def prepare(directory: Path) -> None:
    """Writes `<case>.onnx` and `<case>.npz` with inputs and NumPy's results."""
    import onnx
    from plugin import INPUTS, OUTPUTS, make_model

    import ort_roialign

    directory.mkdir(parents=True)
    rng = np.random.default_rng(20)
    values = {
        "X": rng.standard_normal((2, 20, 30, 40), dtype=np.float32),
        "rois": np.sort(rng.uniform(-20, 330, (50, 2, 2)), axis=1).reshape(50, 4).astype("f4"),
        "batch_indices": rng.integers(0, 2, 50),
        "dY": rng.standard_normal((50, 20, 7, 5), dtype=np.float32),
        "offset": rng.standard_normal((50, 2, 7, 5), dtype=np.float32),
    }
    for number, size in enumerate(((30, 40), (15, 20), (8, 10))):
        values[f"X{number}"] = rng.standard_normal((2, 20, *size), dtype=np.float32)
    for case, (operator, attributes) in CASES.items():
        inputs = {name: values[name] for name in INPUTS[operator]}
        function = getattr(ort_roialign.reference, re.sub(r"\B([A-Z])", r"_\1", operator).lower())
        results = function(*inputs.values(), **attributes)
        results = results if isinstance(results, (tuple, list)) else (results,)
        types = {name: value.dtype for name, value in inputs.items()}
        shapes = {
            name: [f"{name}_{axis}" for axis in range(value.ndim)] for name, value in inputs.items()
        }
        onnx.save(make_model(operator, attributes, types, shapes), directory / f"{case}.onnx")
        expected = {
            f"expected_{name}": r for name, r in zip(OUTPUTS[operator], results, strict=True)
        }
        np.savez(directory / f"{case}.npz", **inputs, **expected)
    operator, attributes = BAD_ATTRIBUTE
    types = {name: values[name].dtype for name in INPUTS[operator]}
    onnx.save(make_model(operator, attributes, types), directory / "bad_attribute.onnx")


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
        session = onnxruntime.InferenceSession(path, options, providers=providers)
        feeds = {item.name: values[item.name] for item in session.get_inputs()}
        for output, result in zip(session.get_outputs(), session.run(None, feeds), strict=True):
            expected = values[f"expected_{output.name}"]
            np.testing.assert_allclose(result, expected, *tolerances.GRADIENT["float32"])
            assert output.shape[1] == second_axis(output.name, feeds), output.shape
        bad_feeds = {**feeds, "batch_indices": feeds["batch_indices"] + 7}
        expect_error("batch_indices[0] must be in [0, 2)", session.run, None, bad_feeds)
    bad = str(directory / "bad_attribute.onnx")
    expect_error(
        'attribute mode must be "avg" or "max"; got "median"',
        lambda: onnxruntime.InferenceSession(bad, options, providers=providers),
    )
    available = onnxruntime.get_available_providers()
    print(f"onnxruntime {onnxruntime.__version__} {available}: {len(CASES)} models agree")


def second_axis(output: str, inputs: Container[str]) -> str | int:
    """The name of an output's second axis: that of the maps, or of what it is the gradient of."""
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
