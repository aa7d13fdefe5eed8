"""Runs a model as it is and converted, and shows what that changes: outputs, nodes and time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ort_roialign.cli.convert import print_differences, print_report
from ort_roialign.cli.kernel_profile import PLUGIN_DOMAIN, KernelProfile, read_whole_profile
from ort_roialign.cli.model_inputs import image_feeds, read_npz
from ort_roialign.cli.sessions import SessionResult, SessionSettings, run_model
from ort_roialign.cli.time_shares import MOST_COLOURS, check_picture, plot_time_shares
from ort_roialign.convert import ConversionReport, convert_file
from ort_roialign.convert._sessions import foreign_domains
from ort_roialign.convert._verify import check_feeds, compare_outputs, draw_feeds
from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError

Array = npt.NDArray[Any]
# Of the table, and this package's own; the rest is one row.
MOST_OPERATORS = 12


@dataclass(frozen=True)
class CompareSettings:
    """What the command was asked for.

    Attributes:
        model: the ONNX file.
        image: an image to run it on; None: see `npz`.
        npz: a NumPy file with its inputs; None draws them at random.
        picture: the PNG file to write.
        seed: of the drawn inputs.
        session: how the models run.
    """

    model: Path
    image: Path | None
    npz: Path | None
    picture: Path
    seed: int
    session: SessionSettings


def run_compare(settings: CompareSettings, console: Console) -> bool:
    """Convert, run both, and print and draw how they differ.

    Returns:
        Whether something was converted, and no output differs.

    Raises:
        OrtRoiAlignError: if a file cannot be read, or the converted model does not run.
    """
    check_picture(settings.picture)
    with tempfile.TemporaryDirectory(prefix="ort_roialign_compare_") as folder:
        converted = Path(folder) / settings.model.name
        report = convert_file(settings.model, converted, libraries=settings.session.libraries)
        print_report(console, settings.model, report)
        if not report.converted:
            return False
        feeds = _feeds_once(settings)
        before, stands_in = _run(settings.model, feeds, settings.session, plugin=False)
        after, _ = _run(converted, feeds, settings.session, plugin=True)
    console.print(_time_table(before, after, report, stands_in))
    differences = compare_outputs(before.outputs, after.outputs)
    print_differences(console, differences, report)
    plot_time_shares(_bars(before, after), settings.picture)
    console.print(f"Wrote {escape(str(settings.picture))}", soft_wrap=True, highlight=False)
    return all(each.passed for each in differences)


def _feeds_once(settings: CompareSettings) -> Callable[[Any], Mapping[str, Array]]:
    """Return what gives the inputs for a session: the same ones for both models."""
    feeds: dict[str, Array] = {}

    def feeds_of(session: Any) -> Mapping[str, Array]:
        if not feeds:
            if settings.npz is not None:
                feeds.update(check_feeds(session, read_npz(settings.npz)))
            elif settings.image is not None:
                feeds.update(image_feeds(session, settings.image))
            else:
                feeds.update(draw_feeds(session, settings.seed))
        return feeds

    return feeds_of


def _run(
    model: Path,
    feeds: Callable[[Any], Mapping[str, Array]],
    settings: SessionSettings,
    *,
    plugin: bool,
) -> tuple[SessionResult, bool]:
    """Run a model; where it needs the plugin's kernels for other operators, with them."""
    run: dict[str, Any] = {"read_profile": read_whole_profile}
    try:
        return run_model(model, feeds, settings, plugin=plugin, **run), False
    except InvalidArgumentError:
        raise
    except OrtRoiAlignError:
        domains = foreign_domains(model)
        if not domains:
            raise
        return run_model(model, feeds, settings, plugin=True, domains=domains, **run), True


def _times(profile: KernelProfile) -> dict[str, tuple[int, float]]:
    """Return the number of nodes of each operator, and their milliseconds."""
    times: dict[str, tuple[int, float]] = {}
    for kernel in profile.kernels:
        standard = kernel.domain.startswith(("ai.onnx", "com.microsoft"))  # the latter: fused ones
        name = kernel.operator if standard else f"{kernel.domain}::{kernel.operator}"
        nodes, milliseconds = times.get(name, (0, 0.0))
        times[name] = (nodes + kernel.nodes, milliseconds + kernel.milliseconds)
    return times


def _by_time(before: SessionResult, after: SessionResult) -> list[str]:
    """Return the operators of both, those that take longest in either first."""
    both = [_times(before.profile), _times(after.profile)]
    names = dict.fromkeys([*both[0], *both[1]])
    return sorted(names, key=lambda name: -max(each.get(name, (0, 0.0))[1] for each in both))


def _time_table(
    before: SessionResult, after: SessionResult, report: ConversionReport, stands_in: bool
) -> Table:
    times = [_times(before.profile), _times(after.profile)]
    where = " (onnxruntime cannot run it: on this package's kernels)" if stands_in else ""
    table = Table(
        title=f"Time of a run by operator, as it is{where} and converted",
        caption="Of operators: within a profiled run. Whole run: median without profiling.",
    )
    table.add_column("Operator", overflow="fold")
    for way in ("As it is", "Converted"):
        table.add_column(f"{way}: nodes", justify="right")
        table.add_column("ms", justify="right")
    names = _by_time(before, after)
    shown = [n for n in names if n in names[:MOST_OPERATORS] or n.startswith(PLUGIN_DOMAIN)]
    for name in shown:
        table.add_row(escape(name), *_cells(times, [name]))
    if len(shown) < len(names):
        table.add_row("others", *_cells(times, [name for name in names if name not in shown]))
    table.add_section()
    table.add_row(
        "Whole run; nodes of the file",
        str(report.nodes_before),
        f"{before.seconds * 1000:.1f}",
        str(report.nodes_after),
        f"{after.seconds * 1000:.1f}",
    )
    return table


def _cells(times: list[dict[str, tuple[int, float]]], names: list[str]) -> list[str]:
    cells = []
    for each in times:
        found = [each[name] for name in names if name in each]
        cells.append(str(sum(nodes for nodes, _ in found)) if found else "-")
        cells.append(f"{sum(milliseconds for _, milliseconds in found):.2f}" if found else "-")
    return cells


def _bars(before: SessionResult, after: SessionResult) -> dict[str, dict[str, float]]:
    """Return the milliseconds of each operator of both ways: the longest, and the converted."""
    names = _by_time(before, after)
    # They may be too short to be seen by themselves, which is what there is to see.
    own = [name for name in names if name.startswith(PLUGIN_DOMAIN)]
    others = [name for name in names if name not in own]
    at = max(MOST_COLOURS - len(own), 0)
    names = others[:at] + own + others[at:]
    ways = {"as it is": _times(before.profile), "converted": _times(after.profile)}
    return {
        way: {name: times.get(name, (0, 0.0))[1] for name in names} for way, times in ways.items()
    }
