"""Fails when a log field is a time or a size and its name has no unit.

Times end with `_s` or `_ms`, sizes with `_bytes`, and are bare numbers, so that programs can compare them. A formatted
Duration (`took=2.4ms`, `pause=1.5s`) can't be compared.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MACRO = re.compile(r"tracing::(?:trace|debug|info|warn|error|event|\w+_span)!\s*\(")
FIELD = re.compile(r"^\s*(?:(?P<name>[\w.]+)\s*=\s*)?(?P<form>[%?]?)\s*(?P<value>[\w.]+)?")
# The last word of a name that is an amount.
AMOUNT = re.compile(
    r"(?:^|_)(?:took|pause|wait(?:ed)?|elapsed|timeout|delay|lasted|duration|period|patience|age|grace|"
    r"bytes|size|length|memory|seconds|secs|sec|s|ms|millis|micros|us|ns|nanos|minutes|hours|kb|mb|gb)$"
)
UNIT = re.compile(r"_(?:s|ms|bytes)$")


def arguments(text, at):
    """What stands between the brackets that open before `at`, split at commas of its own."""
    depth, part, parts, quoted = 1, "", [], False
    while depth and at < len(text):
        letter = text[at]
        if quoted and letter == "\\":
            part += text[at : at + 2]
            at += 2
            continue
        if letter == '"':
            quoted = not quoted
        if not quoted:
            depth += letter in "([{"
            depth -= letter in ")]}"
            if letter == "," and depth == 1:
                parts.append(part)
                part = ""
                at += 1
                continue
        if depth:
            part += letter
        at += 1
    return [*parts, part]


def complaints(text):
    """The lines of fields without a unit, and what they are called."""
    for macro in MACRO.finditer(text):
        for argument in arguments(text, macro.end()):
            field = FIELD.match(argument)
            if argument.lstrip().startswith('"') or not field or not (field["name"] or field["value"]):
                continue
            name = (field["name"] or field["value"]).split(".")[-1]
            if AMOUNT.search(name) and (not UNIT.search(name) or field["form"] == "?"):
                yield text.count("\n", 0, macro.start()) + 1, name


# What has to be found, and what must not be.
KNOWN = {
    'tracing::info!(?took, "http")': ["took"],
    'tracing::info!(pause = ?it.pause, "x")': ["pause"],
    'tracing::info!(%reason, wait_s = ?wait, "x")': ["wait_s"],
    'tracing::info!(size, "x")': ["size"],
    'tracing::info!(sent.bytes = 3, took_us = 4, "x, took = 5")': ["bytes", "took_us"],
    'tracing::info!(took_ms = it.took(1, 2), sent_bytes = 5, tasks = all.len(), %error, "the pause, of {took}")': [],
    'tracing::info_span!("request", id, peer = %reached.peer)': [],
}


def main():
    for line, names in KNOWN.items():
        assert [name for _, name in complaints(line)] == names, line
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name} is an amount: name it …_s, …_ms or …_bytes, and give a number"
        for path in sorted(ROOT.glob("crates/*/src/**/*.rs"))
        for line, name in complaints(path.read_text())
    ]
    print("\n".join(found))
    sys.exit(bool(found))


main()
