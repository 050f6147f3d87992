"""Fails when a Markdown file refers to a file, heading or test that does not exist.

Checked are the relative links and their anchors, and every path or test written in `code` that begins with one of
the repository's own top-level names: `crates/wire/src/lib.rs`, `tests/e2e/test_stock_sdk.py::test_a_value`.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def files():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True)
    return sorted(path for path in listed.stdout.splitlines() if (ROOT / path).exists())


def anchors(markdown):
    """The anchors that the headings of a page give."""
    made = set()
    for heading in HEADING.findall(FENCE.sub("", markdown.read_text())):
        plain = re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        made.add(re.sub(r"[^\w\- ]", "", plain).strip().lower().replace(" ", "-"))
    return made


def broken_link(page, target):
    """Why a relative link leads nowhere, or None."""
    if re.match(r"[a-z]+:", target):
        return None
    path, _, anchor = target.partition("#")
    wanted = (page.parent / path).resolve() if path else page
    if not wanted.exists():
        return f"no such file: {target}"
    if anchor and wanted.suffix == ".md" and anchor not in anchors(wanted):
        return f"no such heading: {target}"
    return None


def broken_code(code, tops):
    """Why a path or test written as code is wrong, or None when it is right or no path of ours."""
    path, _, test = code.partition("::")
    if not re.fullmatch(r"[\w.\-/]+", path) or path.split("/")[0] not in tops or "/" not in path:
        return None
    wanted = ROOT / path
    if not wanted.exists():
        return f"no such file: {code}"
    name = re.escape(test.split("::")[-1])
    # The last form: a test in a list of a program that runs its tests itself.
    if test and not re.search(rf"\b(def|fn|class) {name}\b|\"\w+::{name}\"", wanted.read_text()):
        return f"no such test: {code}"
    return None


def main():
    tracked = files()
    tops = {path.split("/")[0] for path in tracked}
    pages = [ROOT / path for path in tracked if path.endswith(".md")]
    checked, wrong = 0, []
    for page in pages:
        text = page.read_text()
        for target in LINK.findall(FENCE.sub("", text)):
            checked += 1
            wrong.append((page, broken_link(page, target)))
        for code in CODE.findall(FENCE.sub("", text)):
            checked += 1
            wrong.append((page, broken_code(code, tops)))
    wrong = [(page, why) for page, why in wrong if why]
    for page, why in wrong:
        print(f"{page.relative_to(ROOT)}: {why}")
    print(f"{len(pages)} pages, {checked} links and paths, {len(wrong)} broken")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
