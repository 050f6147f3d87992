"""Lets the tests of the recorder import the modules of `tests/broker`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "broker"))
