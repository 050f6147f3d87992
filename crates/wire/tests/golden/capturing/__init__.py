"""The parts of `capture.py`."""
