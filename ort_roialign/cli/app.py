"""The commands of `ort-roialign` and their options.

The modules behind a command are imported when it runs: they need packages that are optional, and
PyTorch takes seconds to import.
"""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ort_roialign import __version__
from ort_roialign.cli.demo_command import demo
from ort_roialign.cli.options import Libraries, Threads, errors_as_text
from ort_roialign.cli.requirements import COMPARE, EXPLAIN, EXPLAIN_MODEL, require_packages
from ort_roialign.errors import InvalidArgumentError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


class PartChoice(str, Enum):
    """The parts of the benchmark."""

    WORKLOADS = "workloads"
    SWEEP = "sweep"
    TRAINING = "training"


def main() -> None:
    """Run the command line."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ort_roialign {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """RoIAlign and its family as an ONNX Runtime plugin."""


@app.command()
def info(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the facts as JSON instead of tables.")
    ] = False,
) -> None:
    """Show the library, its operators and kernels, and the onnxruntime that is installed."""
    from ort_roialign.cli.info import collect_info, print_info

    with errors_as_text():
        facts = collect_info()
        if as_json:
            typer.echo(json.dumps(facts, indent=2))
        else:
            print_info(facts, Console())


app.command()(demo)


@app.command()
def bench(
    output: Annotated[
        Path, typer.Option(file_okay=False, help="Directory for the results.")
    ] = Path("benchmark-results"),
    parts: Annotated[
        list[PartChoice],
        typer.Option(
            help="Calls as real detectors make them, one property varied at a time, or the whole "
            "family forward and backward in PyTorch; may be repeated."
        ),
    ] = list(PartChoice),  # noqa: B006 - typer copies it
    only: Annotated[
        list[str],
        typer.Option(
            metavar="NAME", help="Time only this, such as 'fpn_*' or 'sweep/rois=*'; repeatable."
        ),
    ] = [],  # noqa: B006 - typer copies it
    threads: Threads = 0,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Least number of samples; 15, or 5 when quick.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few points and few samples.")] = False,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="Also time large workloads on one thread.")
    ] = False,
) -> None:
    """Time RoIAlign on the CPU against onnxruntime's own and torchvision's.

    Its family is timed in training, forward and backward, against torchvision's. All contestants
    run in one process in turn, on the same data and threads, and their outputs are compared first.
    The results are written as JSON, Markdown and plots.
    """
    with errors_as_text():
        from ort_roialign.benchmarks.requirements import require_packages as require_for_bench

        require_for_bench()
        from ort_roialign.benchmarks.bench import BenchSettings, run_bench

        settings = BenchSettings(
            output=output,
            parts=tuple(choice.value for choice in parts),
            only=tuple(only),
            threads=threads,
            rounds=rounds,
            quick=quick,
            scaling=scaling,
        )
        run_bench(settings, Console())


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="ONNX file to convert.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="ONNX file to write.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Run both models and compare their outputs.")
    ] = False,
    npz: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Inputs to verify with, by name, as numpy.savez writes them; else random ones.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random inputs.")] = 0,
    fold_shift: Annotated[
        bool,
        typer.Option(
            help="Turn Sub(rois, 0.5 / spatial_scale) before a RoiAlign of output_half_pixel, as "
            "all of opset 10 to 15 are, into half_pixel, which it stood for. Boxes narrower than "
            "one cell then differ."
        ),
    ] = True,
    fallback: Annotated[
        bool,
        typer.Option(
            help="Add functions of standard operators, so that the file runs without the plugin, "
            "too. Needs PyTorch."
        ),
    ] = False,
    libraries: Libraries = [],  # noqa: B006 - typer copies it
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON instead of tables.")
    ] = False,
) -> None:
    """Convert an existing ONNX file to this package's operators.

    Converted are ONNX's RoiAlign and MaxRoiPool, mmcv's and mmdeploy's RoI operators, whole feature
    pyramids as torchvision, detectron2, mmdet and mmdeploy export them, and the loop that pastes
    masks. OUT is written when it is complete and onnxruntime has loaded it, and stays whatever
    --verify finds. The exit code is 1 if there is nothing to convert, or --verify finds an output
    that differs. --npz verifies, too.
    """
    with errors_as_text():
        from ort_roialign.cli.convert import ConvertSettings, run_convert

        settings = ConvertSettings(
            source=source,
            target=target,
            verify=verify or npz is not None,
            inputs=npz,
            seed=seed,
            fold_shift=fold_shift,
            fallback=fallback,
            libraries=tuple(libraries),
            as_json=as_json,
        )
        passed = run_convert(settings, Console())
    if not passed:
        raise typer.Exit(1)


@app.command()
def compare(
    model: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="ONNX file, left as it is.")
    ],
    image: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Photograph to run a detector on."),
    ] = None,
    npz: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Inputs by name, as numpy.savez writes them."
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="PNG file to write; MODEL's name with _time.png."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of inputs that are not given.")] = 0,
    threads: Threads = 0,
    libraries: Libraries = [],  # noqa: B006 - typer copies it
) -> None:
    """Run a model as it is and converted to this package's operators, and show what changes.

    Prints how far the outputs differ, the nodes, and the time by operator, and draws the shares of
    the time. Inputs are an image, a NumPy file, or random. The exit code is 1 if there is nothing
    to convert, or an output differs.
    """
    with errors_as_text():
        if image is not None and npz is not None:
            raise InvalidArgumentError("compare: inputs must be --image or --npz; got both")
        require_packages("ort-roialign compare", COMPARE)
        from ort_roialign.cli.compare import CompareSettings, run_compare
        from ort_roialign.cli.sessions import SessionSettings

        settings = CompareSettings(
            model=model,
            image=image,
            npz=npz,
            picture=picture or Path(f"{model.stem}_time.png"),
            seed=seed,
            session=SessionSettings(threads=threads, libraries=tuple(libraries)),
        )
        passed = run_compare(settings, Console())
    if not passed:
        raise typer.Exit(1)


@app.command()
def explain(
    output: Annotated[Path, typer.Option(dir_okay=False, help="PNG or SVG file to write.")] = Path(
        "explain.png"
    ),
    image_size: Annotated[
        tuple[int, int] | None,
        typer.Option(min=1, help="Width and height of the image in pixels; 800 800."),
    ] = None,
    box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(help="x1, y1, x2, y2 in image pixels; 70 90 735 755."),
    ] = None,
    stride: Annotated[
        float | None, typer.Option(min=1, help="Image pixels of a feature cell; 32.")
    ] = None,
    bins: Annotated[int | None, typer.Option(min=1, max=64, help="Bins of a side; 7.")] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=0, max=16, help="Samples per bin and axis, 0 is adaptive; 2."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Detector whose boxes are drawn on the image, pooled as its RoiAlign does.",
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Picture for --model; else the demo's digits."
        ),
    ] = None,
    most_boxes: Annotated[
        int | None,
        typer.Option(min=1, max=20, help="How many of the model's boxes are drawn; 3."),
    ] = None,
) -> None:
    """Draw what RoI Pooling's roundings and RoIAlign's samples make of a box.

    Four figures: rounded down twice, as RoI Pooling is usually told of; RoiPool, which rounds to
    the nearest cell and lets bins overlap; RoIAlign's bins and samples; one sample with its four
    neighbours and their weights. With --model, the boxes of a real detector, on its image.
    """
    with errors_as_text():
        of_method = _given(
            image_size=image_size, box=box, stride=stride, bins=bins, samples=samples
        )
        of_model = _given(image=image, most_boxes=most_boxes)
        if model is None and of_model:
            raise InvalidArgumentError("explain: --image and --most-boxes must go with --model")
        if model is not None and of_method:
            raise InvalidArgumentError(
                "explain: --image-size, --box, --stride, --bins and --samples must go without "
                "--model, whose boxes and pooling are drawn"
            )
        require_packages(
            "ort-roialign explain", EXPLAIN if model is None else EXPLAIN + EXPLAIN_MODEL
        )
        from ort_roialign.cli.explain import MethodSettings, ModelSettings, run_explain

        settings = (
            MethodSettings(**of_method) if model is None else ModelSettings(model, **of_model)
        )
        run_explain(settings, output, Console())


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
