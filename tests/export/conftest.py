"""Runs every exported file on the plugin's kernels, and without the plugin."""

from __future__ import annotations

import pytest
from running import RUNS, Run


@pytest.fixture(params=list(RUNS))
def run(request: pytest.FixtureRequest) -> Run:
    return RUNS[request.param]
