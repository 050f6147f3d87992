"""Fails when the page of the benchmarks is not made from what their programs printed, or a goal is missing on it.

`bench/RESULTS.md` must be what `bench/page.py` makes from `bench/results.json` and `bench/goals.toml`. Every goal must be
well-formed and on the page with its verdict. Measurements are not judged: on a slow machine goals are missed, and this
check still passes.
"""

import sys
import tomllib
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import page  # noqa: E402

KEYS = {"issue", "goal", "part", "of", "minus", "over", "unit", "at_least", "at_most", "limits"}


def complaints():
    table = tomllib.loads(page.GOALS.read_text())
    written = page.PAGE.read_text()
    if page.made() != written:
        yield "bench/RESULTS.md is not made from its measurements and goals: run `bench/run --page`"
    for goal in table["goal"]:
        words = goal.get("goal", "a goal without words")
        if unknown := goal.keys() - KEYS:
            yield f"{words}: unknown {sorted(unknown)}"
        if missing := {"issue", "goal", "part", "of"} - goal.keys():
            yield f"{words}: no {sorted(missing)}"
            continue
        if ("at_least" in goal) == ("at_most" in goal):
            yield f"{words}: wants one of at_least, at_most"
        if str(goal["issue"]) not in table["issues"] or goal["part"] not in table["parts"]:
            yield f"{words}: of an unknown issue or part"
        if not any(line.startswith(f"| {words} | ") for line in written.splitlines()):
            yield f"{words}: is not on the page"


def main():
    found = list(complaints())
    for complaint in found:
        print(complaint)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
