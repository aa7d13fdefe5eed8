"""Runs a model in onnxruntime, with or without the plugin, timed and profiled."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

import ort_roialign
from ort_roialign.cli.kernel_profile import KernelProfile, read_kernel_profile
from ort_roialign.errors import OrtRoiAlignError

LOG_ERRORS_ONLY = 3
# The first one allocates memory, the second one is looked at.
PROFILED_RUNS = 2
# As many runs as give a steady median, but no more than fit: Mask R-CNN takes seconds a run.
MOST_TIMED_RUNS = 9
LONGEST_TIMING_SECONDS = 8.0


@dataclass(frozen=True)
class SessionSettings:
    """How a model is run.

    Attributes:
        threads: threads within an operator; 0 leaves the choice to onnxruntime.
        provider: "cpu" or "cuda".
        libraries: further libraries with custom operators of the model.
    """

    threads: int = 0
    provider: str = "cpu"
    libraries: tuple[Path, ...] = ()

    @property
    def providers(self) -> list[Any]:
        """The providers as `InferenceSession` takes them, in order of preference."""
        if self.provider == "cuda":
            # TensorFloat-32 keeps 10 bits of a product, less than the comparison allows.
            return [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
        return ["CPUExecutionProvider"]


@dataclass(frozen=True)
class SessionResult:
    """What a model returned, in what time, through which kernels.

    Attributes:
        outputs: name of an output -> array.
        seconds: median time of a run, without profiling.
        profile: the kernels that ran, from onnxruntime's profile.
    """

    outputs: dict[str, npt.NDArray[Any]]
    seconds: float
    profile: KernelProfile


def require_provider(settings: SessionSettings) -> None:
    """Check that onnxruntime has the provider: else it would quietly use the CPU.

    Raises:
        OrtRoiAlignError: if it has not.
    """
    available = onnxruntime.get_available_providers()
    if settings.provider == "cuda" and "CUDAExecutionProvider" not in available:
        raise OrtRoiAlignError(
            f"this onnxruntime has no CUDAExecutionProvider; it has {', '.join(available)}. "
            f"Install onnxruntime-gpu in place of onnxruntime, in the directory of ort_roialign's "
            f"sources:\n  pip uninstall onnxruntime && pip install '.[gpu,export]'"
        )


def run_session(
    model: Path, image: npt.NDArray[np.float32], settings: SessionSettings, *, plugin: bool
) -> SessionResult:
    """Run a detector in onnxruntime, and look at its RoI kernels.

    Args:
        model: the ONNX file.
        image: [3, height, width], float32, 0 to 1.
        settings: threads and provider.
        plugin: True registers this package's operators; False leaves onnxruntime as it is.

    Raises:
        OrtRoiAlignError: if onnxruntime cannot load or run the model.
    """
    return run_model(
        model,
        lambda session: {session.get_inputs()[0].name: image},
        settings,
        plugin=plugin,
        read_profile=read_kernel_profile,
    )


def run_model(
    model: Path,
    feed_of: Callable[[Any], Mapping[str, npt.NDArray[Any]]],
    settings: SessionSettings,
    *,
    plugin: bool,
    read_profile: Callable[[Path, Path], KernelProfile],
    domains: Sequence[str] = (),
) -> SessionResult:
    """Run a model in onnxruntime.

    Args:
        model: the ONNX file.
        feed_of: gives the inputs, by name, for a session of the model.
        settings: threads and provider.
        plugin: True registers this package's operators; False leaves onnxruntime as it is.
        read_profile: reads the kernels that ran, see `read_kernel_profile`.
        domains: further domains that the plugin's kernels stand in for, as `register` takes them.

    Raises:
        OrtRoiAlignError: if onnxruntime cannot load or run the model.
    """
    with tempfile.TemporaryDirectory(prefix="ort_roialign_") as folder:
        optimized_model = Path(folder) / "optimized.onnx"
        options = session_options(settings)
        options.optimized_model_filepath = str(optimized_model)
        # A model of more than 2 GB cannot be in one file.
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "optimized.data"
        )
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        with failures_as_errors(model, plugin=plugin):
            session = open_session(model, settings, options, plugin=plugin, domains=domains)
            feed = dict(feed_of(session))
            names = [output.name for output in session.get_outputs()]
            for _ in range(PROFILED_RUNS):
                values = session.run(names, feed)
            profile = read_profile(Path(session.end_profiling()), optimized_model)
            seconds = median_seconds(lambda: session.run(names, feed))
    return SessionResult(dict(zip(names, values, strict=True)), seconds, profile)


def session_options(settings: SessionSettings) -> Any:
    """Return onnxruntime's options of these settings, with the further libraries registered."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_ERRORS_ONLY
    options.intra_op_num_threads = settings.threads
    if settings.libraries:
        from ort_roialign.convert._sessions import register_libraries

        register_libraries(options, settings.libraries)
    return options


def open_session(
    model: Path,
    settings: SessionSettings,
    options: Any,
    *,
    plugin: bool,
    domains: Sequence[str] = (),
) -> Any:
    """Return an `onnxruntime.InferenceSession` of a model.

    Args:
        model: the ONNX file.
        settings: the provider.
        options: from `session_options`.
        plugin: whether this package's operators are registered.
        domains: further domains that the plugin's kernels stand in for.
    """
    if plugin:
        return ort_roialign.InferenceSession(
            str(model), settings.providers, session_options=options, domains=domains
        )
    return onnxruntime.InferenceSession(str(model), options, providers=settings.providers)


@contextmanager
def failures_as_errors(model: Path, *, plugin: bool) -> Iterator[None]:
    """Name the model in what onnxruntime raises while it loads or runs it.

    Raises:
        OrtRoiAlignError: in place of any error but this package's own.
    """
    try:
        yield
    except OrtRoiAlignError:
        raise
    except Exception as error:  # onnxruntime has no common base class of its errors
        way = "with the plugin" if plugin else "without the plugin"
        raise OrtRoiAlignError(f"onnxruntime failed on {model} {way}: {error}") from error


def median_seconds(call: Callable[[], object]) -> float:
    """Return the median time of a few calls, in seconds."""
    times: list[float] = []
    while len(times) < MOST_TIMED_RUNS and sum(times) < LONGEST_TIMING_SECONDS:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
