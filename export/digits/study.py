"""The method's own experiment: one detector, trained and evaluated with each way of pooling.

    python export/digits/study.py run        # what is missing of all runs; stops when time is up
    python export/digits/study.py mismatch   # how far from its bins each operator reads; seconds
    python export/digits/study.py report     # table and plots of what is there

Runs differ in their poolers alone: the same seed gives the same data and first weights, and starts
the same random choices. A run is a file of its own in docs/study/runs, so that an interrupted study
goes on where it was, and several processes can share it.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from detector import build_detector
from evaluation import evaluate
from mismatch import measure, worked_example
from poolings import POOLINGS
from rich.console import Console
from study_report import write_report
from train_detector import detect_with
from training import BATCH_SIZE, train

FOLDER = Path(__file__).parents[2] / "docs" / "study"
SEEDS = (0, 1, 2)
STEPS = 700
TEST_SEED, TEST_COUNT = 1, 200
MISMATCH_SEED = 0
# Of the text: an image and a box of so many pixels, and the stride of the map.
EXAMPLE = (800, 665, 32)

app = typer.Typer(no_args_is_help=True, add_completion=False)
Folder = Annotated[Path, typer.Option(help="Where the study is kept.")]


@app.command()
def run(
    folder: Folder = FOLDER,
    hours: Annotated[float, typer.Option(min=0, help="Begin no run after this time.")] = 2.5,
    seeds: Annotated[list[int], typer.Option(help="Of data, weights, choices.")] = list(SEEDS),  # noqa: B006 - typer copies it
    poolings: Annotated[list[str], typer.Option(help="Names in poolings.py.")] = list(POOLINGS),  # noqa: B006
    steps: Annotated[int, typer.Option(min=1, help="Batches to train on.")] = STEPS,
    test_count: Annotated[int, typer.Option(min=1, help="Composites of a test.")] = TEST_COUNT,
) -> None:
    """Train and evaluate every way of pooling with every seed, but for what is there already."""
    for name in poolings:
        if name not in POOLINGS:
            raise typer.BadParameter(f"--poolings must be of {', '.join(POOLINGS)}; got {name}")
    settings = {"steps": steps, "batch_size": BATCH_SIZE, "test_count": test_count}
    _check_settings(_runs(folder), settings)
    console, begin = Console(), time.perf_counter()
    # All ways with one seed first: a part of the study can be compared, too.
    wanted = [(name, seed) for seed in seeds for name in poolings]
    missing = [each for each in wanted if not _run_file(folder, *each).exists()]
    for done, (name, seed) in enumerate(missing):
        if time.perf_counter() - begin > hours * 3600:
            console.print(f"Time is up: {len(missing) - done} of {len(wanted)} runs are missing.")
            return
        console.print(f"{name}, seed {seed}: {done + 1} of {len(missing)}")
        run_begin = time.perf_counter()
        torch.manual_seed(seed)
        detector = train(build_detector(POOLINGS[name]), seed=seed, steps=steps)
        scores = evaluate(detect_with(detector), seed=TEST_SEED, count=test_count)
        facts = {
            "pooling": name,
            "seed": seed,
            **settings,
            "minutes": round((time.perf_counter() - run_begin) / 60, 1),
            **asdict(scores),
        }
        _write(_run_file(folder, name, seed), facts)
        console.print(f"  box mAP {scores.box_map}, mask mAP {scores.mask_map}")
    console.print(f"All {len(wanted)} runs are there.")


def _runs(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted((folder / "runs").glob("*.json"))
    return {file.name: json.loads(file.read_text()) for file in files}


def _check_settings(runs: dict[str, dict[str, Any]], settings: dict[str, int]) -> None:
    """Refuse to go on with runs of other settings: they cannot be compared."""
    for name, run in runs.items():
        found = {key: run[key] for key in settings}
        if found != settings:
            raise typer.BadParameter(
                f"the runs of a folder must have the same settings; {name} has {found}, not "
                f"{settings}. Choose another --folder."
            )


def _run_file(folder: Path, name: str, seed: int) -> Path:
    return folder / "runs" / f"{name}_{seed}.json"


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.rename(path)  # an interrupted study leaves no half of a file


@app.command()
def mismatch(folder: Folder = FOLDER) -> None:
    """Measure how far from its bins each operator reads, and work out the text's example."""
    example = dict(zip(("image_px", "box_px", "stride"), EXAMPLE, strict=True))
    content = {
        "worked_example": {**example, **asdict(worked_example(**example))},
        "mismatches": [asdict(each) for each in measure(MISMATCH_SEED)],
    }
    _write(folder / "mismatch.json", content)


@app.command()
def report(folder: Folder = FOLDER) -> None:
    """Write the tables and the plots of all that is there."""
    runs = _runs(folder)
    for run in runs.values():
        _check_settings(runs, {key: run[key] for key in ("steps", "batch_size", "test_count")})
    mismatches = json.loads((folder / "mismatch.json").read_text())
    write_report(folder, list(runs.values()), mismatches)


if __name__ == "__main__":
    app()
