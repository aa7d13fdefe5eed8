"""The shared library: where it is, what it holds, and how a session gets its operators."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ort_roialign._opset import COORDINATE_MODE_SINCE, default_opset
from ort_roialign.errors import (
    InvalidArgumentError,
    LibraryNotFoundError,
    MissingDependencyError,
    OrtRoiAlignError,
)

if TYPE_CHECKING:
    import onnx
    import onnxruntime

_LIBRARY_NAME = "libort_roialign.so"
LIBRARY_VARIABLE = "ORT_ROIALIGN_LIBRARY"
OLDEST_ONNXRUNTIME = (1, 18)
# The choice of domains whose RoiAlign is that of the opsets before this one.
_OLD_ROI_ALIGN = "onnx-10"

# The library sets this entry on a SessionOptions that has its operators.
_REGISTERED_KEY = "ort_roialign.registered"
# It reads this one: names, separated by commas, of further domains; and sets the other.
_DOMAINS_KEY = "ort_roialign.domains"
_REGISTERED_DOMAINS_KEY = "ort_roialign.registered_domains"


def get_library_path() -> str:
    """Returns the path of the shared library, for `SessionOptions.register_custom_ops_library`.

    The environment variable ORT_ROIALIGN_LIBRARY, where set, names the library to use instead of
    the installed one.

    Raises:
        LibraryNotFoundError: The library is missing from the installation, or the variable names
            no file.
    """
    override = os.environ.get(LIBRARY_VARIABLE)
    if override:
        if not Path(override).is_file():
            raise LibraryNotFoundError(
                f"{LIBRARY_VARIABLE} must name the shared library of ort_roialign; got {override}"
            )
        return str(Path(override).resolve())
    places = _package_directories()
    for place in places:
        candidate = Path(place) / _LIBRARY_NAME
        if candidate.is_file():
            return str(candidate)
    raise LibraryNotFoundError(
        f"{_LIBRARY_NAME} was not found in {', '.join(places)}; install the package with "
        f"`pip install .` from its sources, or set {LIBRARY_VARIABLE} to the library's path"
    )


def _package_directories() -> list[str]:
    """The package's path, and where it is installed.

    They differ in an editable install, and where Python runs in the directory of the sources.
    """
    package = importlib.util.find_spec("ort_roialign")
    places = list(package.submodule_search_locations or []) if package else []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed = importlib.metadata.distribution("ort_roialign").locate_file("ort_roialign")
        places.append(str(installed))
    return list(dict.fromkeys(places))


def build_info() -> dict[str, Any]:
    """Returns what the shared library says of itself.

    Returns:
        A dict with `version`, `ort_api_version`, `cpu_features`, `cpu_isas`, `cuda`,
        `cuda_version`, `cuda_architectures` and `operators`: a list with `name`, `types`,
        `providers`, `inputs`, `outputs` and `attributes` of each; and `domains`: what `register`
        takes as further domains, a list with `name`, `domain` and `operators`: of each the `name`,
        the version of the domain that it is there for from (`since_version`), and whether its
        attributes are others than those of this package's operator (`translated`).

    Raises:
        LibraryNotFoundError: As `get_library_path`.
        OrtRoiAlignError: The library cannot be loaded.
    """
    return _ask_library("ort_roialign_build_info")


def cpu_state() -> dict[str, Any]:
    """Returns which CPU kernels a session created now would run, and which have run so far.

    The environment variable ORT_ROIALIGN_FORCE_ISA forces one of `build_info()["cpu_isas"]`, and
    ORT_ROIALIGN_FORCE_PATH one way to pool: "packed", "direct" or "plain". A session reads both
    when it is created.

    Returns:
        A dict with `isa`, the instruction set; `path`, None where each call takes the faster one;
        and `calls`, the number of forward calls of RoIAlign in this process by instruction set
        and path.

    Raises:
        LibraryNotFoundError: As `get_library_path`.
        OrtRoiAlignError: The library cannot be loaded.
        InvalidArgumentError: A variable forces what is not there.
    """
    state = _ask_library("ort_roialign_cpu_state")
    if "error" in state:
        raise InvalidArgumentError(state["error"])
    return state


def _ask_library(function: str) -> dict[str, Any]:
    """Calls a function of the library that answers in JSON."""
    path = get_library_path()
    try:
        describe = getattr(ctypes.CDLL(path), function)
    except (OSError, AttributeError) as error:
        raise OrtRoiAlignError(f"{path} is not a library of ort_roialign: {error}") from error
    describe.restype = ctypes.c_char_p
    text = describe()
    if text is None:
        raise OrtRoiAlignError(f"{path} could not describe itself: memory is short")
    answer: dict[str, Any] = json.loads(text.decode())
    return answer


def register(
    session_options: onnxruntime.SessionOptions, domains: str | Iterable[str] = ()
) -> None:
    """Gives the sessions made with these options the operators of the domain `ort_roialign`.

    A second call with the same options adds only further domains.

    Args:
        session_options: The options to change.
        domains: What else the kernels stand in for, a name or several: "onnx" for RoiAlign and
            MaxRoiPool of opset 22 and later, which onnxruntime's CPU provider lacks; "onnx-all" for
            RoiAlign of opset 16 and later and every MaxRoiPool, or "onnx-10" for these in models of
            opset 10 to 15; "mmcv" and "mmdeploy" for the operators that these export. A session
            with "onnx-10" must not be given a model of opset 16 or later: onnxruntime cannot tell
            the library, whose RoiAlign would take its boxes half a cell off.

    Raises:
        InvalidArgumentError: An argument is of another type, a domain is unknown, or two of them
            replace the same operators.
        LibraryNotFoundError: As `get_library_path`.
        OrtRoiAlignError: onnxruntime is older than 1.18.
    """
    _check_session_options("register", _require_onnxruntime(), session_options)
    wanted = _domain_names("register", domains)
    if not wanted:
        if _entry(session_options, _REGISTERED_KEY) is None:
            session_options.register_custom_ops_library(get_library_path())
        return
    # onnxruntime warns of every entry that is set again.
    if set(wanted) <= set(_registered_domains(session_options)):
        return
    before = _entry(session_options, _DOMAINS_KEY) or ""
    asked = dict.fromkeys([*filter(None, before.split(",")), *wanted])
    session_options.add_session_config_entry(_DOMAINS_KEY, ",".join(asked))
    try:
        session_options.register_custom_ops_library(get_library_path())
    except Exception as error:
        session_options.add_session_config_entry(_DOMAINS_KEY, before)
        if type(error).__name__ != "InvalidArgument":  # onnxruntime's class, from its inside
            raise
        raise InvalidArgumentError(f"register: domains cannot be {wanted}: {error}") from error


def InferenceSession(  # noqa: N802 - it stands for the class of that name
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
    session_options: onnxruntime.SessionOptions | None = None,
    *,
    domains: str | Iterable[str] = (),
    **kwargs: Any,
) -> onnxruntime.InferenceSession:
    """Makes an `onnxruntime.InferenceSession` that knows the operators of `ort_roialign`.

    Args:
        model: Path of an ONNX file, its bytes, or an `onnx.ModelProto`.
        providers: Execution providers in order of preference. By default CUDA, where this
            onnxruntime has it, then the CPU.
        session_options: Options to use; they get the operators registered. By default fresh ones.
        domains: Further domains, as `register` takes them; but "onnx-10" with a model of opset 16
            or later is an error here.
        **kwargs: Passed on to `onnxruntime.InferenceSession`.

    Raises:
        InvalidArgumentError: Session options are of another type, or in another place; the domains
            are not for the model's opset; or as `register`.
        LibraryNotFoundError: As `get_library_path`.
        MissingDependencyError: onnxruntime is not installed.
        OrtRoiAlignError: onnxruntime is older than 1.18.
    """
    ort = _require_onnxruntime()
    if "sess_options" in kwargs or isinstance(providers, ort.SessionOptions):
        raise InvalidArgumentError(
            "InferenceSession: session options must be given as session_options=...; providers "
            "come before them, unlike in onnxruntime.InferenceSession"
        )
    options = session_options if session_options is not None else ort.SessionOptions()
    _check_session_options("InferenceSession", ort, options)
    domains = _domain_names("InferenceSession", domains)
    _check_opset(model, [*domains, *_registered_domains(options)])
    register(options, domains)
    if providers is None:
        preferred = ("CUDAExecutionProvider", "CPUExecutionProvider")
        available = ort.get_available_providers()
        providers = [provider for provider in preferred if provider in available]
    if "CUDAExecutionProvider" in [p if isinstance(p, str) else p[0] for p in providers]:
        _load_cuda_libraries(ort)
    if isinstance(model, os.PathLike):
        model = os.fspath(model)
    elif hasattr(model, "SerializeToString"):
        model = model.SerializeToString()
    return ort.InferenceSession(model, sess_options=options, providers=list(providers), **kwargs)


def supported_onnxruntime(version: str) -> bool:
    """Returns whether a version of onnxruntime, such as "1.31.1", can load the library."""
    numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
    return tuple(numbers) >= OLDEST_ONNXRUNTIME


def _require_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise MissingDependencyError(
            "onnxruntime is not installed; in the directory of ort_roialign's sources install it "
            "with `pip install '.[cpu]'`, or for NVIDIA GPUs with `pip install '.[gpu]'`"
        ) from error
    if not supported_onnxruntime(onnxruntime.__version__):
        oldest = ".".join(map(str, OLDEST_ONNXRUNTIME))
        raise OrtRoiAlignError(
            f"onnxruntime {oldest} or newer is required; got {onnxruntime.__version__}"
        )
    return onnxruntime


def _check_session_options(caller: str, ort: Any, session_options: object) -> None:
    if not isinstance(session_options, ort.SessionOptions):
        raise InvalidArgumentError(
            f"{caller}: session_options must be an onnxruntime.SessionOptions; "
            f"got {session_options!r}"
        )


def _domain_names(caller: str, domains: object) -> list[str]:
    given = [domains] if isinstance(domains, str) else domains
    names = list(given) if isinstance(given, Iterable) else None
    if names is None or not all(isinstance(name, str) and name.isascii() for name in names):
        raise InvalidArgumentError(
            f'{caller}: domains must be a name or several, such as ["mmcv", "mmdeploy"]; '
            f"got {domains!r}"
        )
    return [name.strip() for each in names for name in each.split(",") if name.strip()]


def _check_opset(model: object, domains: Iterable[str]) -> None:
    """Checks what the library cannot: it is not told of a model's opset."""
    if _OLD_ROI_ALIGN not in domains:
        return
    opset = default_opset(model)
    if opset is not None and opset >= COORDINATE_MODE_SINCE:
        raise InvalidArgumentError(
            f'InferenceSession: domains must have "onnx-all" in place of "{_OLD_ROI_ALIGN}", which '
            f"is for models of opset 10 to {COORDINATE_MODE_SINCE - 1}; the model's is {opset}"
        )


def _entry(session_options: onnxruntime.SessionOptions, key: str) -> str | None:
    try:
        value: str = session_options.get_session_config_entry(key)
    except RuntimeError:  # onnxruntime's way to say that the entry is absent
        return None
    return value


def _registered_domains(session_options: onnxruntime.SessionOptions) -> list[str]:
    return (_entry(session_options, _REGISTERED_DOMAINS_KEY) or "").split(",")


def _load_cuda_libraries(ort: Any) -> None:
    # CUDA and cuDNN that came as wheels lie where the dynamic loader does not look.
    if hasattr(ort, "preload_dlls") and importlib.util.find_spec("nvidia") is not None:
        ort.preload_dlls()
