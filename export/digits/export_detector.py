"""Exports the trained detector to ONNX, compares it with PyTorch, and puts it into the package.

    python export/digits/export_detector.py WEIGHTS ort_roialign/digits

Writes what `ort-roialign demo` reads: the ONNX file, the names of the classes, and a composite.
"""

import warnings
from pathlib import Path
from typing import Annotated

import torch
import typer
from composites import CLASS_NAMES, Composite, make_composite
from detector import SCORE_THRESHOLD, build_detector
from evaluation import detect_with_session
from PIL import Image
from rich.progress import track
from train_detector import TEST_SEED, detect_with

import ort_roialign
from ort_roialign.cli.parity import compare_outputs
from ort_roialign.onnx_export import export

LARGEST_FILE_BYTES = 5_000_000
# Of the test split: many digits of many sizes.
SHIPPED_SEED, SHIPPED_NUMBER = 2026, 12


def shipped_composite() -> Composite:
    return make_composite(SHIPPED_SEED, "test", SHIPPED_NUMBER)


def main(
    weights: Annotated[Path, typer.Argument(exists=True, help="weights.pt of train_detector.py")],
    folder: Annotated[Path, typer.Argument(help="Where to write.")],
    dynamo: Annotated[bool, typer.Option(help="the exporter: dynamo or TorchScript")] = False,
    count: Annotated[int, typer.Option(min=1, help="Composites to compare on.")] = 50,
) -> None:
    """Export, compare every output, and write the files of the demo."""
    detector = build_detector()
    detector.load_state_dict(torch.load(weights, weights_only=True))
    detector.eval()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "detector.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns dozens of times
        export(detector, [torch.rand(3, 224, 320)], file, dynamo=dynamo, opset_version=18)
    size = file.stat().st_size
    if size > LARGEST_FILE_BYTES:
        raise SystemExit(f"{file} must have at most {LARGEST_FILE_BYTES} bytes; it has {size}")

    eager = detect_with(detector)
    session = detect_with_session(ort_roialign.InferenceSession(str(file)))
    found = 0
    for number in track(range(count), "Comparing with PyTorch", transient=True):
        image = make_composite(TEST_SEED, "test", number).image
        comparison = compare_outputs(
            eager(image),
            session(image),
            max_detections=detector.roi_heads.detections_per_img,
            score_threshold=SCORE_THRESHOLD,
        )
        if not comparison.passed:
            raise SystemExit(f"composite {number}: {'; '.join(comparison.problems)}")
        found += comparison.actual
    (folder / "classes.txt").write_text("\n".join(("background", *CLASS_NAMES)) + "\n")
    Image.fromarray(shipped_composite().image).save(folder / "image.png", optimize=True)
    print(f"{file}: {size} bytes; all {found} detections in {count} composites equal PyTorch's")


if __name__ == "__main__":
    typer.run(main)
