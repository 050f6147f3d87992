"""The page of what the benchmarks showed: `results.json` and `goals.toml` in, `RESULTS.md` out.

It measures nothing and knows no clock: the same two files always make the same page, which `checks/results.py` holds it
to. So each number on the page was printed by a program, and a goal that was missed is shown as missed.
"""

import json
import os
import tomllib
from pathlib import Path

from parts import RATES

HERE = Path(__file__).resolve().parent
PAGE = HERE / "RESULTS.md"
RESULTS = HERE / "results.json"
GOALS = HERE / "goals.toml"

# More subjects than this are listed, not put side by side.
SIDE_BY_SIDE = 5


def keep(name, record):
    """Keeps what a part printed, in place of what it printed before."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[name] = record
    text = json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False)
    unfinished = RESULTS.with_suffix(".new")
    unfinished.write_text(text + "\n")
    os.replace(unfinished, RESULTS)


def write():
    PAGE.write_text(made())


def made():
    """The page's text."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    table = tomllib.loads(GOALS.read_text())
    return "\n".join([*_head(results), *_goals(table, results), *_measurements(table, results)]) + "\n"


def unexplained():
    """The goals that were not met, and of which `goals.toml` does not say what limits them."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    goals = tomllib.loads(GOALS.read_text())["goal"]
    return [goal["goal"] for goal in goals if _verdict(goal, results) != "met" and "limits" not in goal]


def _head(results):
    yield "# What the benchmarks showed"
    yield ""
    yield "Made by `bench/run` from `results.json` and `goals.toml`: do not edit. `make bench` measures everything anew,"
    yield "`bench/run PART…` some parts. [README.md](README.md) says what is measured and how to read it."
    machines = sorted({f"{it['machine']}; {it['versions']}" for it in results.values()})
    yield ""
    yield "Measured on:"
    yield ""
    for machine in machines:
        yield f"- {machine}"
    yield ""
    yield "The load generators and the peers run on the same cores. Compare numbers within one part only: its subjects were"
    yield "measured one after the other, in one run."


def _goals(table, results):
    yield ""
    yield "## The goals"
    verdicts = [_verdict(goal, results) for goal in table["goal"]]
    counted = {word: verdicts.count(word) for word in ("met", "missed", "not shown")}
    yield ""
    yield ", ".join(f"{count} {word}" for word, count in counted.items() if count) + "."
    for issue, title in table["issues"].items():
        goals = [goal for goal in table["goal"] if str(goal["issue"]) == issue]
        yield ""
        yield f"### {title}"
        yield ""
        yield "| goal | seen | | part |"
        yield "|---|---|---|---|"
        for goal in goals:
            yield f"| {goal['goal']} | {_seen(goal, results)} | {_verdict(goal, results)} | {goal['part']} |"
        limits = [goal for goal in goals if _verdict(goal, results) != "met"]
        if limits:
            yield ""
            yield "What limits those that were not met:"
            yield ""
            for goal in limits:
                yield f"- *{goal['goal']}*: {goal.get('limits', 'not looked into yet.')}"


def value(goal, results):
    """What was seen for a goal, as a number; `None` when nothing was."""
    measured = {(it["subject"], it["measure"]): it["value"] for it in results.get(goal["part"], {}).get("measurements", [])}
    parts = [measured.get(tuple(goal[key])) for key in ("of", "minus", "over") if key in goal]
    if None in parts:
        return None
    seen = parts[0]
    if "minus" in goal:
        seen -= parts[1]
    if "over" in goal:
        seen /= parts[-1]
    return seen


def _verdict(goal, results):
    seen = value(goal, results)
    if seen is None:
        return "not shown"
    good = seen >= goal["at_least"] if "at_least" in goal else seen <= goal["at_most"]
    return "met" if good else "missed"


def _seen(goal, results):
    seen = value(goal, results)
    if seen is None:
        return "—"
    return f"{number(seen)} ×" if "over" in goal else f"{number(seen)}{_unit(goal.get('unit', ''))}"


def _measurements(table, results):
    yield ""
    yield "## The measurements"
    for name, about in table["parts"].items():
        if name not in results:
            continue
        record = results[name]
        yield ""
        yield f"### {name}"
        yield ""
        yield about["says"]
        yield ""
        yield f"`{record['command']}`, {record['day']}, load {record['load']} at the start."
        for note in record["notes"]:
            yield f"{note}."
        yield ""
        subjects = list(dict.fromkeys(it["subject"] for it in record["measurements"]))
        if len(subjects) > SIDE_BY_SIDE:
            yield from _listed(record["measurements"])
        else:
            yield from _side_by_side(record["measurements"], subjects, about.get("ours"))


def _listed(measurements):
    yield "| what | measure | seen |"
    yield "|---|---|---|"
    for it in measurements:
        yield f"| {it['subject']} | {it['measure']} | {_shown(it)} |"


def _side_by_side(measurements, subjects, ours):
    """A row for each measure, a column for each subject; in brackets, how many times better `ours` is."""
    cells = {(it["measure"], it["subject"]): it for it in measurements}
    beside = ours in subjects and len(subjects) > 1
    yield f"| {f'measure (×: how much better *{ours}* is)' if beside else 'measure'} | {' | '.join(subjects)} |"
    yield "|---" * (len(subjects) + 1) + "|"
    for measure in dict.fromkeys(it["measure"] for it in measurements):
        row = []
        for subject in subjects:
            it = cells.get((measure, subject))
            mine = cells.get((measure, ours))
            text = _shown(it) if it else "—"
            if beside and subject != ours and it and mine and it["unit"] and it["value"] > 0 and mine["value"] > 0:
                better = mine["value"] / it["value"] if it["unit"] in RATES else it["value"] / mine["value"]
                text += f" ({number(better)} ×)"
            row.append(text)
        yield f"| {measure} | {' | '.join(row)} |"


def _shown(it):
    return number(it["value"]) + _unit(it["unit"])


def _unit(unit):
    return unit if unit in ("", "/s") else f" {unit}"


def number(it):
    """As many digits as mean something."""
    if it == int(it) or abs(it) >= 100:
        return f"{it:,.0f}"
    return f"{it:.1f}" if abs(it) >= 10 else f"{it:.3g}"
