"""Many threads: the results stay the same to the last bit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from plugin import ELEMENT_TYPES, make_model, make_session, random_inputs, run

CASES = [
    ("RoiAlign", {"mode": "avg"}),
    ("RoiAlign", {"mode": "max"}),
    ("RoiPool", {}),
    ("RoiAlignGrad", {"mode": "avg"}),
    ("RoiAlignGrad", {"mode": "max"}),
    ("RoiPoolGrad", {}),
]
SIZE = {"output_height": 3, "output_width": 4}
OPERATORS = ["RoiAlign", "RoiPool", "PrRoiPool", "RoiAlignGrad", "RoiPoolGrad"]


def inputs_of(operator: str, rng: np.random.Generator, type_name: str = "float32") -> Any:
    inputs = random_inputs(rng, type_name, channels=35, num_rois=25, spatial_scale=1.0)
    if operator.endswith("Grad"):
        dy = rng.standard_normal((25, 35, 3, 4)).astype(inputs["X"].dtype)
        inputs = {"dY": dy, **inputs}
    return inputs


def bits(arrays: list[Any]) -> list[bytes]:
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize(("operator", "attributes"), CASES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_number_of_threads_changes_nothing(cpu_device, rng, operator, attributes, type_name):
    inputs = inputs_of(operator, rng, type_name)
    one, *others = (
        bits(run(cpu_device, operator, inputs, threads=threads, **SIZE, **attributes))
        for threads in (1, 2, 3, 7)
    )
    assert all(other == one for other in others)


@pytest.mark.parametrize(("operator", "attributes"), CASES)
def test_one_session_in_several_threads(device, rng, operator, attributes):
    calls = [inputs_of(operator, rng) for _ in range(4)]
    types = {name: array.dtype for name, array in calls[0].items()}
    session = make_session(make_model(operator, SIZE | attributes, types), device)
    expected = [bits(session.run(None, inputs)) for inputs in calls]
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda number: session.run(None, calls[number % 4]), range(16)))
    assert [bits(result) for result in results] == expected * 4


def test_sessions_made_and_run_in_several_threads(device, rng):
    problems = {operator: inputs_of(operator, rng) for operator in OPERATORS}

    def make_and_run(operator: str) -> list[bytes]:
        inputs = problems[operator]
        types = {name: array.dtype for name, array in inputs.items()}
        session = make_session(make_model(operator, SIZE, types), device, threads=2)
        return bits(session.run(None, inputs))

    expected = {operator: make_and_run(operator) for operator in OPERATORS}
    order = OPERATORS * 4
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(make_and_run, order))
    assert results == [expected[operator] for operator in order]


def test_errors_in_several_threads(cpu_device, rng):
    good = inputs_of("RoiAlign", rng)
    bad = good | {"batch_indices": good["batch_indices"] + 100}
    types = {name: array.dtype for name, array in good.items()}
    session = make_session(make_model("RoiAlign", SIZE, types), cpu_device)
    expected = bits(session.run(None, good))

    def run_one(number: int) -> bool:
        if number % 2:
            return bits(session.run(None, good)) == expected
        with pytest.raises(Exception, match="batch_indices"):
            session.run(None, bad)
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(run_one, range(24)))
