"""What the demo found: the facts, whether they are good, and the tables that show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ort_roialign.cli.kernel_profile import PLUGIN_DOMAIN, STANDARD_DOMAIN, KernelProfile
from ort_roialign.cli.parity import BOX_TOLERANCE_PX, MASK_TOLERANCE, SCORE_TOLERANCE, Comparison

PLUGIN = "plugin"
BUILT_IN = "built-in"
EAGER = "PyTorch"
# A comparison of fewer random detections than this would show nothing.
LEAST_RANDOM_DETECTIONS = 20


@dataclass(frozen=True)
class Timing:
    """One way of running the model.

    Attributes:
        way: `PLUGIN`, `BUILT_IN` or `EAGER`.
        seconds: median time of a run.
        profile: the kernels that ran; None for PyTorch.
    """

    way: str
    seconds: float
    profile: KernelProfile | None


@dataclass(frozen=True)
class PathReport:
    """One model exported by one exporter.

    Attributes:
        model: the model's name.
        exporter: the exporter's name.
        random_weights: whether the weights are random.
        timings: each way it was run.
        comparisons: the way that the plugin's outputs were compared with -> the comparison.
    """

    model: str
    exporter: str
    random_weights: bool
    timings: tuple[Timing, ...]
    comparisons: dict[str, Comparison]

    @property
    def only_export_differs(self) -> bool:
        """Whether PyTorch gives something else, but onnxruntime the same with either kernel."""
        eager, built_in = self.comparisons[EAGER], self.comparisons[BUILT_IN]
        return built_in.passed and not eager.passed

    @property
    def problems(self) -> list[str]:
        """What is wrong, one sentence each."""
        found = [
            f"{self.model}, {self.exporter}, {PLUGIN} against {other}: {problem}"
            for other, comparison in self.comparisons.items()
            for problem in comparison.problems
        ]
        where = f"{self.model}, {self.exporter}"
        for timing in self.timings:
            if timing.profile is not None:
                found += [f"{where}, {p}" for p in _kernel_problems(timing.way, timing.profile)]
        fewest = min((c.actual for c in self.comparisons.values()), default=0)
        if self.random_weights and fewest < LEAST_RANDOM_DETECTIONS:
            found.append(f"{where}: {fewest} detections are too few to compare")
        return found


def _kernel_problems(way: str, profile: KernelProfile) -> list[str]:
    wanted, other = (
        (PLUGIN_DOMAIN, STANDARD_DOMAIN) if way == PLUGIN else (STANDARD_DOMAIN, PLUGIN_DOMAIN)
    )
    problems = []
    if not profile.ran(wanted):
        problems.append(f"{way}: no RoI kernel of {wanted} ran")
    if profile.ran(other):
        problems.append(f"{way}: RoI kernels of {other} ran")
    return problems


def print_report(console: Console, reports: list[PathReport], files: list[Path]) -> None:
    """Print the tables, the files and the verdict."""
    console.print(_speed_table(reports))
    console.print(_parity_table(reports))
    for note in _notes(reports):
        console.print(note, highlight=False)
    for file in files:
        console.print(f"Wrote {file}", soft_wrap=True, highlight=False)
    problems = [problem for report in reports for problem in report.problems]
    for problem in problems:
        console.print(f"[bold red]FAILED[/] {problem}", soft_wrap=True, highlight=False)
    if not problems:
        console.print("[bold green]PASSED[/] All outputs agree, and the plugin's kernels ran.")


def _notes(reports: list[PathReport]) -> Iterator[str]:
    """Yield what is needed to read the tables rightly."""
    yield f"{PLUGIN}: this package's kernels; {BUILT_IN}: onnxruntime's own, from the same file."
    for report in reports:
        for other, comparison in report.comparisons.items():
            if comparison.masks is not None and comparison.masks.rounded_otherwise:
                yield (
                    f"{report.model} against {other}: {comparison.masks.rounded_otherwise} masks "
                    f"lie one pixel further, as an edge of their box rounds to the other side."
                )
        if report.only_export_differs:
            yield (
                f"{report.model}, {report.exporter}: onnxruntime's own RoiAlign gives what the "
                f"plugin gives, so it is the exported model that differs from PyTorch."
            )
    if any(report.random_weights for report in reports):
        yield (
            "[yellow]Weights are random: boxes, labels and masks mean nothing.[/] They only show "
            "that every way of running the model gives the same. For real detections give "
            "torchvision's state dicts (--weights-mask, --weights-mobilenet)."
        )


# Both tables fit into 80 columns, the width of a terminal that says nothing of its width.
def _speed_table(reports: list[PathReport]) -> Table:
    table = Table(
        title="What ran, as onnxruntime's profile says, and for how long",
        caption="Whole ms: without profiling. RoI ms (share): within a profiled run.",
    )
    for heading in ("Model", "Run by"):
        table.add_column(heading, no_wrap=True)
    table.add_column("Kernels that ran", overflow="fold")
    for heading in ("Whole ms", "RoI ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for report in reports:
        for name, timing in zip(_name_cells(report), report.timings, strict=False):
            table.add_row(
                name,
                timing.way,
                *_kernel_cells(timing),
                end_section=timing is report.timings[-1],
            )
    return table


def _name_cells(report: PathReport) -> Iterator[str]:
    """Yield the first cell of each row of one model: its name, the exporter, then nothing."""
    return chain((report.model, report.exporter), repeat(""))


def _kernel_cells(timing: Timing) -> tuple[str, str, str]:
    """Return the cells for kernels, time of a run, time and share of its RoI kernels."""
    whole = f"{timing.seconds * 1000:.0f}"
    if timing.profile is None:
        return "-", whole, "-"
    kernels = "\n".join(str(kernel) for kernel in timing.profile.kernels) or "none"
    if any(k.provider != "CPUExecutionProvider" for k in timing.profile.kernels):
        # On a GPU the profile holds the time to start a kernel, not the time it runs.
        return kernels, whole, "-"
    profile = timing.profile
    return kernels, whole, f"{profile.roi_milliseconds:.0f} ({profile.roi_share:.0%})"


def _parity_table(reports: list[PathReport]) -> Table:
    table = Table(
        title=f"Outputs of the {PLUGIN} against the others; largest differences",
        caption=f"Allowed: box {BOX_TOLERANCE_PX:g} px, score {SCORE_TOLERANCE:g}, "
        f"mask {MASK_TOLERANCE:g}",
    )
    for heading in ("Model", "Against"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Found", "Matched", "Box px", "Score", "Mask", "Result"):
        table.add_column(heading, justify="right", no_wrap=True)
    for report in reports:
        rows = zip(_name_cells(report), report.comparisons.items(), strict=False)
        for name, (other, comparison) in rows:
            table.add_row(
                name,
                other,
                *_comparison_cells(comparison),
                end_section=other == list(report.comparisons)[-1],
            )
    return table


def _comparison_cells(comparison: Comparison) -> tuple[str, ...]:
    matching, masks = comparison.matching, comparison.masks
    same_count = comparison.expected == comparison.actual
    mask_text = "-" if masks is None else f"{masks.largest_difference:.0e}"
    return (
        str(comparison.actual) if same_count else f"{comparison.expected} / {comparison.actual}",
        str(len(matching.pairs)),
        f"{matching.largest_box_difference:.0e}",
        f"{matching.largest_score_difference:.0e}",
        mask_text,
        "[green]same[/]" if comparison.passed else "[bold red]differ[/]",
    )
