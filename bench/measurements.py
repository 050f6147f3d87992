"""Prints what a benchmark in Python measured: one number a line, as JSON, as `bench/src/measurements.rs` does."""

import json
from pathlib import Path


def record(subject, measure, value, unit):
    """Prints one measurement: of whom, what, how much."""
    print(json.dumps({"subject": subject, "measure": measure, "value": value, "unit": unit}), flush=True)


def note(text):
    """Prints what a reader of the measurements must know: a version, a smaller load for one of the subjects."""
    print(json.dumps({"note": text}), flush=True)


def pss(pid):
    """The memory of a process in kB; what processes share counts once."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
