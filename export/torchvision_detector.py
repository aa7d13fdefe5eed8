"""Exports one of torchvision's detectors to ONNX for images of any size, and runs it once.

    python export/torchvision_detector.py fasterrcnn_resnet50_fpn detector.onnx --weights FILE

Without weights the detector is random: the file is right, its detections mean nothing.
"""

import warnings
from pathlib import Path
from typing import Annotated

import torch
import torchvision
import typer

import ort_roialign
from ort_roialign import onnx_export

# The two-stage detectors: the others have no RoIs.
DETECTORS = torchvision.models.list_models(torchvision.models.detection, include="*rcnn*")


def detector_name(name: str) -> str:
    if name not in DETECTORS:
        raise typer.BadParameter(f"must be one of {', '.join(DETECTORS)}; got {name}")
    return name


def main(
    name: Annotated[str, typer.Argument(callback=detector_name, help="a detector of torchvision")],
    path: Annotated[Path, typer.Argument(help="the ONNX file to write")],
    weights: Annotated[
        Path | None, typer.Option(exists=True, help="a state dict, as torch.save wrote it")
    ] = None,
    opset: Annotated[int, typer.Option(help="opset of the standard operators")] = 18,
    dynamo: Annotated[bool, typer.Option(help="the exporter: dynamo or TorchScript")] = True,
    batch: Annotated[bool, typer.Option(help="for batches of any number of images")] = False,
) -> None:
    """Exports one of torchvision's detectors for images of any size, and runs it once."""
    warnings.filterwarnings("ignore")  # tracing warns dozens of times of torchvision's own code
    detector = torchvision.models.get_model(name, weights=None, weights_backbone=None).eval()
    if weights is not None:
        detector.load_state_dict(torch.load(weights, weights_only=True))

    images = torch.rand(2, 3, 480, 640) if batch else [torch.rand(3, 480, 640)]
    onnx_export.export(detector, images, path, dynamo=dynamo, opset_version=opset)

    session = ort_roialign.InferenceSession(path)
    other_size = torch.rand(3, 3, 320, 400) if batch else torch.rand(3, 320, 400)
    feeds = {session.get_inputs()[0].name: other_size.numpy()}
    for output, array in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        print(f"{output.name}: {array.dtype} {list(array.shape)}")


if __name__ == "__main__":
    typer.run(main)
