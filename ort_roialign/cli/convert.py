"""Converts an ONNX file and says what became of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ort_roialign.cli.model_inputs import read_npz
from ort_roialign.convert import ConversionReport, convert_file
from ort_roialign.convert._sessions import foreign_domains
from ort_roialign.convert._verify import OutputDifference, compare_files


@dataclass(frozen=True)
class ConvertSettings:
    """What the command was asked for.

    Attributes:
        source: the file to convert.
        target: the file to write.
        verify: whether to run both and compare.
        inputs: a NumPy .npz file with inputs for that; None draws them.
        seed: of the drawn inputs.
        fold_shift: whether Sub(rois, 0.5 / spatial_scale) becomes half_pixel.
        fallback: whether to add functions of standard operators.
        libraries: libraries with other custom operators of the model.
        as_json: whether to print JSON instead of tables.
    """

    source: Path
    target: Path
    verify: bool
    inputs: Path | None
    seed: int
    fold_shift: bool
    fallback: bool
    libraries: tuple[Path, ...]
    as_json: bool


def run_convert(settings: ConvertSettings, console: Console) -> bool:
    """Convert, compare if asked to, and print both.

    Returns:
        Whether something was converted, and no output differs.
    """
    feeds = read_npz(settings.inputs) if settings.inputs is not None else None
    report = convert_file(
        settings.source,
        settings.target,
        fold_shift=settings.fold_shift,
        fallback=settings.fallback,
        libraries=settings.libraries,
    )
    if not settings.as_json:
        print_report(console, settings.source, report)
        if report.converted:
            _print_file(console, settings.target, report)
    differences: list[OutputDifference] | None = None
    if settings.verify and report.converted:
        differences = compare_files(
            settings.source,
            settings.target,
            feeds=feeds,
            seed=settings.seed,
            libraries=settings.libraries,
        )
    if settings.as_json:
        console.file.write(f"{json.dumps(_facts(settings, report, differences), indent=2)}\n")
    elif differences is not None:
        domains = foreign_domains(settings.source)
        if domains and not settings.libraries:  # which may have kernels for them
            console.print(
                f"[yellow]Note[/] The original ran on this package's kernels for "
                f"{' and '.join(domains)}, of which onnxruntime has none.",
                soft_wrap=True,
                highlight=False,
            )
        print_differences(console, differences, report)
    return report.converted and all(each.passed for each in differences or [])


def _facts(
    settings: ConvertSettings,
    report: ConversionReport,
    differences: list[OutputDifference] | None,
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "source": str(settings.source),
        "target": str(settings.target) if report.converted else None,
        **report.as_dict(),
    }
    if differences is not None:
        # JSON has no infinity.
        facts["differences"] = [
            {**asdict(each), "largest": each.largest if np.isfinite(each.largest) else None}
            for each in differences
        ]
    return facts


def print_report(console: Console, source: Path, report: ConversionReport) -> None:
    """Print what of a file was converted, what was left, and why."""
    if report.converted:
        console.print(_replaced_table(report))
    if report.left:
        console.print(_left_table(report))
    for warning in report.warnings:
        console.print("[yellow]Note[/]", escape(warning), soft_wrap=True, highlight=False)
    if not report.converted:
        console.print(
            f"[bold yellow]Nothing to convert[/] in {escape(str(source))}; no file was written.",
            soft_wrap=True,
            highlight=False,
        )


def _print_file(console: Console, target: Path, report: ConversionReport) -> None:
    console.print(
        f"Wrote {escape(str(target))}: {report.nodes_after} nodes of {report.nodes_before}.",
        soft_wrap=True,
        highlight=False,
    )


def _replaced_table(report: ConversionReport) -> Table:
    table = Table(title="Converted")
    table.add_column("Was", overflow="fold")
    table.add_column("Became", no_wrap=True)
    table.add_column("Nodes", justify="right", no_wrap=True)
    table.add_column("Named", overflow="fold")
    for (was, became), count in report.counts.items():
        names = [r.node for r in report.replaced if (r.replaced, r.operator) == (was, became)]
        table.add_row(escape(was), became, str(count), escape(_some(names)))
    return table


def _some(names: list[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _left_table(report: ConversionReport) -> Table:
    table = Table(title="Left as it was")
    for heading in ("Node", "What", "Why"):
        table.add_column(heading, overflow="fold")
    for left in report.left:
        table.add_row(escape(left.node), escape(left.operator), escape(left.reason))
    return table


def print_differences(
    console: Console, differences: list[OutputDifference], report: ConversionReport
) -> None:
    """Print how far the converted model's outputs are from the original's, and the verdict."""
    table = Table(title="Outputs of the converted model against the original's")
    table.add_column("Output", overflow="fold")
    table.add_column("Shape", no_wrap=True)
    table.add_column("Largest difference", justify="right")
    table.add_column("Result", no_wrap=True)
    table.add_column("Note", overflow="fold")
    for each in differences:
        table.add_row(
            escape(each.name),
            escape(str(list(each.shape))),
            f"{each.largest:.1e}",
            "[green]same[/]" if each.passed else "[bold red]differs[/]",
            escape(each.note),
        )
    console.print(table)
    if all(0 in each.shape and each.passed for each in differences):
        console.print(
            "[bold yellow]EMPTY[/] Both models find nothing in these inputs, which proves "
            "nothing; give others with --npz.",
            soft_wrap=True,
        )
    elif all(each.passed for each in differences):
        console.print("[bold green]PASSED[/] The converted model gives what the original gives.")
    else:
        names = ", ".join(each.name for each in differences if not each.passed)
        why = " The notes above say what means something else now." if report.warnings else ""
        console.print(
            f"[bold red]FAILED[/] Not the same: {escape(names)}.{why}",
            soft_wrap=True,
            highlight=False,
        )
