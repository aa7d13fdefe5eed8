"""Runs the command as `python -m ort_roialign.cli`."""

from ort_roialign.cli.app import main

main()
