"""Fails when the record of the long tests (`tests/long.json`) is not what `tests/long.py` writes.

It says nothing about how old a run is, nor whether it passed: that is for the reader of the record.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import long  # noqa: E402

FIELDS = {
    "commit": lambda it: re.fullmatch(r"[0-9a-f]{40}", str(it)),
    "dirty": lambda it: isinstance(it, bool),
    "day": lambda it: re.fullmatch(r"\d{4}-\d\d-\d\d", str(it)),
    "seconds": lambda it: isinstance(it, int) and it > 0,
    "status": lambda it: isinstance(it, int),
    "closing": lambda it: isinstance(it, str) and it,
}


def complaints(record):
    for part, entry in record.items():
        if part not in long.PARTS:
            yield f"{part}: no such part"
        if set(entry) != set(FIELDS):
            yield f"{part}: has {sorted(entry)} instead of {sorted(FIELDS)}"
        for field, is_right in FIELDS.items():
            if field in entry and not is_right(entry[field]):
                yield f"{part}: {field} is {entry[field]!r}"
        if entry.get("status") == 0 and not re.match(r"\d+ passed", str(entry.get("closing"))):
            yield f"{part}: ended with status 0 and {entry.get('closing')!r}"


def main():
    record = long.read()
    found = list(complaints(record))
    for complaint in found:
        print(f"tests/long.json: {complaint}")
    print(f"{len(record)} of {len(long.PARTS)} parts of the long tests recorded, {len(found)} entries wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
