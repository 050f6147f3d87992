"""How a benchmark in Python tells what it measured: as `bench/src/figures.rs` does, one number a line, as JSON."""

import json
from pathlib import Path


def tell(subject, measure, value, unit):
    """Tells one figure: of whom, what, how much."""
    print(json.dumps({"subject": subject, "measure": measure, "value": value, "unit": unit}), flush=True)


def note(text):
    """Tells what a reader of the figures must know: a version, a smaller load for one of the subjects."""
    print(json.dumps({"note": text}), flush=True)


def pss(pid):
    """The memory of a process in kB; what processes share counts once."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
