"""Trains the detector that the demo ships, and evaluates it.

    python export/digits/train_detector.py FOLDER

Takes some 20 minutes on two CPU cores.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from detector import build_detector
from evaluation import Detect, evaluate, print_scores
from rich.console import Console
from torchvision.models.detection import MaskRCNN
from training import train

from ort_roialign.cli.model_inputs import as_model_input

TEST_SEED = 1


def detect_with(detector: MaskRCNN) -> Detect:
    """Return how to detect with a detector in PyTorch."""

    @torch.inference_mode()
    def detect(pixels):
        found = detector([torch.from_numpy(as_model_input(pixels))])[0]
        return {name: each.numpy() for name, each in found.items()}

    return detect


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write weights.pt and scores.json.")],
    seed: Annotated[int, typer.Option(min=0, help="Of data, weights and choices.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Batches to train on.")] = 2400,
    test_count: Annotated[int, typer.Option(min=1, help="Composites to evaluate on.")] = 300,
) -> None:
    """Train and evaluate; `export_detector.py` exports."""
    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    begin = time.perf_counter()
    detector = train(build_detector(), seed=seed, steps=steps)
    console.print(f"Trained in {(time.perf_counter() - begin) / 60:.1f} minutes")
    torch.save(detector.state_dict(), folder / "weights.pt")
    scores = evaluate(detect_with(detector), seed=TEST_SEED, count=test_count)
    print_scores(scores, console)
    (folder / "scores.json").write_text(json.dumps(asdict(scores), indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
