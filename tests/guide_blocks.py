"""Reads the fenced blocks of our guide's pages, in order, so that a test can run them.

The info string says what a block is; readers only see its first word, as colours:

    sh                    commands, run in the terminal `here`, a shell that lives as long as the page
    sh on=NAME            commands in the terminal NAME, with a home directory of its own
    sh stays              commands that run until the end of the page; later blocks use a new terminal
    sh stays apart        the same, in a terminal opened for it; later blocks use the terminal from before
    sh fails              commands of which the last fails
    sh login=USERNAME     commands that ask for a login, done as USERNAME
    text                  the output of the commands before it; `…` stands for anything within a line
    LANGUAGE FILE         a file that the reader writes

Other blocks are not run: `yaml`, `python`, `text` that follows no commands.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Block:
    page: Path
    line: int
    language: str
    words: list
    text: str
    shown: str | None = None
    options: dict = field(default_factory=dict)

    def __str__(self):
        return f"{self.page.name}:{self.line}"


def blocks(page):
    """All blocks of a page; what commands print is attached to them."""
    text = page.read_text()
    found, end = [], 0
    for match in FENCE.finditer(text):
        language, *words = match["info"].split() or [""]
        block = Block(page, text.count("\n", 0, match.start()) + 1, language, words, match["text"])
        block.options = dict(word.split("=", 1) for word in words if "=" in word)
        between = text[end:match.start()].strip()
        if language == "text" and found and found[-1].language == "sh" and not between:
            found[-1].shown = block.text
        else:
            found.append(block)
        end = match.end()
    return found


ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def pattern(shown, known):
    """What a page shows, as a pattern: `…` is anything within a line, or lines by itself. The ids of a page are others each
    time: `known` says which, as far as they were met, and the names of the groups say which are new."""
    lines = []
    groups = {}

    def part(text):
        if text == "…":
            return "[^\n]*"
        if not re.fullmatch(ID, text):
            return re.escape(text)
        if text in known:
            return known[text]
        if text in groups:
            return f"(?P={groups[text]})"
        groups[text] = f"id{len(groups)}"
        return f"(?P<{groups[text]}>{ID})"

    for line in shown.rstrip("\n").split("\n"):
        if line.strip() == "…":
            lines.append(r"(?:[^\n]*\n)*?")
        else:
            lines.append("".join(map(part, re.split(f"(…|{ID})", line.rstrip()))) + r"[ ]*\n")
    return "".join(lines), groups


def shows(printed, shown, known):
    """Whether what was printed holds what the page shows, from the beginning of a line on. Learns the ids."""
    wanted, groups = pattern(shown, known)
    found = re.search("^" + wanted, printed.expandtabs(4).rstrip("\n") + "\n", re.MULTILINE)
    if found:
        known |= {page: found[group] for page, group in groups.items()}
    return found is not None
