"""The programs of export/digits import one another by name, as they do when they are run."""

import sys
from pathlib import Path

PROGRAMS = Path(__file__).parents[2] / "export" / "digits"
sys.path.insert(0, str(PROGRAMS))
