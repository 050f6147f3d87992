"""The tests that take minutes, in parts of at most half an hour, and the record of their last runs.

    python3.11 tests/long.py            # every part, one after another
    python3.11 tests/long.py kills      # one
    python3.11 tests/long.py --list     # the parts, and when each ran last

A test belongs to a part by its mark: `@pytest.mark.long("kills")`; without a name, to `others`. Each run writes into
`long.json` the commit it tested, whether the tree had other changes, how long it took, and the last line of pytest. Commit
that file: `checks/long_runs.py` sees that it is well-formed.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import environments

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "tests/long.json"
OTHERS = "others"
LIMIT_S = 30 * 60
ONE = ("-s",)
TWO = ("-n", "2", "--dist", "worksteal")
THREE = ("-n", "3", "--dist", "loadfile")
# What is in each part, and how it is run. Chaos is timed: two runs beside each other would disturb one another.
PARTS = {
    "chaos-1": ("everything that can break breaks, our endpoint, seven runs", ONE),
    "chaos-2": ("the same with other seeds", ONE),
    "chaos-3": ("the same with other seeds", ONE),
    "chaos-upstream": ("the same with upstream's endpoint", ONE),
    "postgres-faults": ("PostgreSQL breaks in every way, alone and among everything else that can break", ONE),
    "kills": ("endpoint, node or worker killed, 60 times each run", TWO),
    "idle-rounds": ("200 submits at the moment when an idle user endpoint ends", ONE),
    "openapi": ("schemathesis with 500 examples for each operation", ONE),
    "postgres": ("the end-to-end tests, each service on PostgreSQL", THREE),
    OTHERS: ("attacks at full size, kills of the service, slow paths of SDK and endpoint", TWO),
}
# Runs again, on a PostgreSQL server, what the normal run has on SQLite.
ON_POSTGRES = "postgres"
CLOSING = re.compile(r"^=+ (.*\d+ (?:passed|failed|error).* in .*?) =+$", re.MULTILINE)


def read():
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def run(part):
    """Runs a part and records it. Returns its exit status."""
    how = PARTS[part][1]
    python = environments.make("tests")
    command = [python, "-m", "pytest", "-c", "tests/pytest.ini", "--part", part, *how, "tests"]
    if part == ON_POSTGRES:
        command = [sys.executable, "tests/postgres.py", "--", *command]
    # The record itself changes between two parts.
    state = {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", ".", ":!tests/long.json"))}
    print(f"== {part}: {PARTS[part][0]}", flush=True)
    began = time.monotonic()
    output = ""
    with subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True, errors="replace") as running:
        for line in running.stdout:
            print(line, end="", flush=True)
            # Only the last line is kept.
            output = line if CLOSING.search(line) else output
    seconds = round(time.monotonic() - began)
    closing = CLOSING.search(output)
    entry = state | {
        "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": seconds,
        "status": running.returncode,
        "closing": closing[1] if closing else "pytest did not end",
    }
    unfinished = RECORD.with_suffix(".new")
    unfinished.write_text(json.dumps(read() | {part: entry}, indent=1, sort_keys=True) + "\n")
    os.replace(unfinished, RECORD)
    print(f"== {part}: {shown(entry)}{', more than half an hour' if seconds > LIMIT_S else ''}")
    return running.returncode


def shown(entry):
    dirty = ", with uncommitted changes" if entry["dirty"] else ""
    return f"{entry['closing']} at {entry['commit'][:10]}{dirty}, {entry['day']}"


def main():
    parser = argparse.ArgumentParser(description="Runs the long tests and records each part.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without any: all")
    parser.add_argument("--list", action="store_true", help="show the parts and their last runs")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if options.list:
        recorded = read()
        for part, (what, _) in PARTS.items():
            print(f"{part}: {what}\n    {shown(recorded[part]) if part in recorded else 'not recorded'}")
        return 0
    failed = [part for part in options.parts or PARTS if run(part) != 0]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
