"""Runs the command `ort-roialign` as `python -m ort_roialign`."""

from ort_roialign.cli.app import main

main()
