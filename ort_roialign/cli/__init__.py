"""The command `ort-roialign`: what is installed, and a demo of it on whole detectors."""

from ort_roialign.cli.app import main

__all__ = ["main"]
