"""Fails when a row of CONFORMANCE.md or of the threat model of managers names no test.

Every row of a table whose last column is called *shown by* must name a test there: a test function, a file with tests, or
a directory of such files. `checks/links.py` checks the other paths.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "CONFORMANCE.md", ROOT / "docs" / "managers-security.md"]
CODE = re.compile(r"`([^`\n]+)`")
# An attribute that makes a function a test, and what may stand between both.
RUST = r"#\[(?:tokio::)?test\b[^\]]*\](?:\s*(?:#\[[^\]]*\]|///[^\n]*|//[^\n]*))*\s*(?:async )?fn {name}\b"
PYTHON = r"def {name}\b"
# The tests of a program that lists them itself (`crates/engine/tests/process`).
LISTED = r"^cases! \{{[^}}]*\b{name}\b"
# The same of `crates/manager/tests/launch`: the module, the name, and whether it needs root.
LAUNCHED = r'\("\w+::{name}", (?:true|false), \w+\)'
TESTS = {".rs": f"{RUST}|{LISTED}|{LAUNCHED}", ".py": PYTHON}


def rows(page):
    """The rows of the tables of a page that promise tests: line number, first cell, last cell."""
    shown = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
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
    for page in PAGES:
        for number, claim, shown in rows(page):
            count += 1
            place = f"{page.relative_to(ROOT)}:{number}: {claim}"
            named = [code for code in CODE.findall(shown) if "/" in code]
            if not any(map(is_test, named)):
                wrong.append(f"{place}: names no test")
            wrong += [f"{place}: {code} is no test" for code in named if "::" in code and not is_test(code)]
    for complaint in wrong:
        print(complaint)
    print(f"{count} claims, {len(wrong)} without their test")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
