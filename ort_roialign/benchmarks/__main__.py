"""Runs the benchmark as `python -m ort_roialign.benchmarks`."""

import sys

from ort_roialign.cli.app import app

app(["bench", *sys.argv[1:]])
