"""The command `demo` and its options; see `app.py`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ort_roialign.cli.options import Threads, errors_as_text
from ort_roialign.cli.requirements import DEMO, EXPORT_DEMO, require_packages
from ort_roialign.errors import InvalidArgumentError

# The title over the options of `demo` that only count there.
WITH_EXPORT = "With --export"


class ModelChoice(str, Enum):
    """The detectors of `demo --export`."""

    MASK = "mask"
    MOBILENET = "mobilenet"


class ProviderChoice(str, Enum):
    """Where the demo runs the models."""

    CPU = "cpu"
    CUDA = "cuda"


def demo(
    output: Annotated[
        Path, typer.Option(file_okay=False, help="Directory for pictures and models.")
    ] = Path("demo-output"),
    image: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Picture to look at; else one of ours."),
    ] = None,
    least_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Show detections of this score and more; 0.75."),
    ] = None,
    threads: Threads = 0,
    provider: Annotated[
        ProviderChoice, typer.Option(help="Where onnxruntime runs the models.")
    ] = ProviderChoice.CPU,
    export: Annotated[
        bool,
        typer.Option(
            "--export",
            help="Export torchvision's detectors from PyTorch and compare every output instead.",
            rich_help_panel=WITH_EXPORT,
        ),
    ] = False,
    models: Annotated[
        list[ModelChoice],
        typer.Option(
            help="Which detector to export; may be repeated. Else all.",
            rich_help_panel=WITH_EXPORT,
        ),
    ] = [],  # noqa: B006 - typer copies it
    weights_mask: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="State dict of torchvision's maskrcnn_resnet50_fpn.",
            rich_help_panel=WITH_EXPORT,
        ),
    ] = None,
    weights_mobilenet: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="State dict of torchvision's fasterrcnn_mobilenet_v3_large_320_fpn.",
            rich_help_panel=WITH_EXPORT,
        ),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(
            min=18,
            max=21,
            help="Opset of the standard operators in the exported models; 18. The comparison needs "
            "onnxruntime's own RoiAlign, which ends at opset 21.",
            rich_help_panel=WITH_EXPORT,
        ),
    ] = None,
) -> None:
    """Detect handwritten digits in a picture, with the plugin and without, and draw them.

    The detector comes with the package, and PyTorch is not needed. The exit code is 1 if
    onnxruntime's own operators find something else.

    With --export: export torchvision's detectors, run them with the plugin, on onnxruntime's own
    RoiAlign, and in PyTorch. The exit code is 1 if an output differs, or if onnxruntime's profile
    does not show that the plugin's kernels ran. Weights are random unless given: nothing is
    downloaded.
    """
    with errors_as_text():
        weights = {"mask": weights_mask, "mobilenet": weights_mobilenet}
        given = {key: path for key, path in weights.items() if path is not None}
        if export:
            if least_score is not None:
                raise InvalidArgumentError("demo: --least-score must go without --export")
            passed = _export_demo(output, models, given, image, opset, threads, provider)
        else:
            if models or given or opset is not None:
                raise InvalidArgumentError(
                    "demo: --models, --weights-mask, --weights-mobilenet and --opset must go with "
                    "--export"
                )
            passed = _digits_demo(output, image, least_score, threads, provider)
    if not passed:
        raise typer.Exit(1)


def _digits_demo(
    output: Path,
    image: Path | None,
    least_score: float | None,
    threads: int,
    provider: ProviderChoice,
) -> bool:
    require_packages("ort-roialign demo", DEMO)
    from ort_roialign.cli.demo import LEAST_SCORE, DemoSettings, run_demo
    from ort_roialign.cli.sessions import SessionSettings

    settings = DemoSettings(
        picture=output / f"{'digits' if image is None else image.stem}_detections.png",
        image=image,
        least_score=LEAST_SCORE if least_score is None else least_score,
        session=SessionSettings(threads=threads, provider=provider.value),
    )
    return run_demo(settings, Console())


def _export_demo(
    output: Path,
    models: list[ModelChoice],
    weights: dict[str, Path],
    image: Path | None,
    opset: int | None,
    threads: int,
    provider: ProviderChoice,
) -> bool:
    require_packages("ort-roialign demo --export", EXPORT_DEMO)
    from ort_roialign.cli.export_demo import ExportDemoSettings, run_export_demo
    from ort_roialign.cli.sessions import SessionSettings

    settings = ExportDemoSettings(
        output=output,
        models=tuple(dict.fromkeys(choice.value for choice in models or ModelChoice)),
        weights=weights,
        image=image,
        opset_version=18 if opset is None else opset,
        session=SessionSettings(threads=threads, provider=provider.value),
    )
    return run_export_demo(settings, Console())
