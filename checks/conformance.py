"""Fails when a row of CONFORMANCE.md names no test.

Every row of a table whose last column is called *shown by* must name a test there: a test function, a file with tests, or
a directory of such files. `checks/links.py` checks the other paths.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "CONFORMANCE.md"
CODE = re.compile(r"`([^`\n]+)`")
# An attribute that makes a function a test, and what may stand between both.
RUST = r"#\[(?:tokio::)?test\b[^\]]*\](?:\s*(?:#\[[^\]]*\]|///[^\n]*|//[^\n]*))*\s*(?:async )?fn {name}\b"
PYTHON = r"def {name}\b"
# The tests of a program that lists them itself (`crates/engine/tests/process`).
LISTED = r"^cases! \{{[^}}]*\b{name}\b"
TESTS = {".rs": f"{RUST}|{LISTED}", ".py": PYTHON}


def rows():
    """The rows of the tables that promise tests: line number, first cell, last cell."""
    shown = False
    for number, line in enumerate(PAGE.read_text().splitlines(), 1):
        if not line.startswith("|"):
            shown = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[-1] == "shown by":
            shown = True
        elif shown and not set(line) <= set("|-"):
            yield number, cells[0], cells[-1]


def is_test(code):
    path, _, name = code.partition("::")
    place = ROOT / path
    files = [file for suffix in TESTS for file in place.rglob(f"*{suffix}")] if place.is_dir() else [place]
    return any(holds(file, name) for file in files if file.suffix in TESTS and file.is_file())


def holds(file, name):
    """Whether the file holds this test; or any, when no name is given."""
    if name and file.suffix == ".py" and not name.startswith("test_"):
        return False
    name = re.escape(name) if name else {".rs": r"\w+", ".py": r"test_\w+"}[file.suffix]
    return bool(re.search(TESTS[file.suffix].format(name=name), file.read_text(), re.MULTILINE))


def main():
    count, wrong = 0, []
    for number, claim, shown in rows():
        count += 1
        named = [code for code in CODE.findall(shown) if "/" in code]
        if not any(map(is_test, named)):
            wrong.append(f"{number}: {claim}: names no test")
        wrong += [f"{number}: {claim}: {code} is no test" for code in named if "::" in code and not is_test(code)]
    for complaint in wrong:
        print(f"CONFORMANCE.md:{complaint}")
    print(f"{count} claims, {len(wrong)} without their test")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
