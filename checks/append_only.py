"""Fails when a commit changed what may only be added to: migrations that ran at a site, bytes captured from the original.

A database that has run a migration never runs it again, and a golden file that is edited to please the code proves
nothing. The history that counts begins with the last commit that changed this file: changing it says, for everyone
to see, that what is there now is the new beginning.

Begun anew on 2026-11-21: migrations 2 to 5 grew together, and no site had run them.
Begun anew on 2026-11-30: migration 7 was added in two commits of one day, and no site had run it.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEALED = [
    "crates/service/src/store/migrations",
    ":(glob)crates/wire/tests/golden/*-[0-9]*/**",
    "crates/wire/tests/golden/vectors",
]


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def main():
    changed = ["--diff-filter=MDRT", "--name-status"]
    beginning = git("log", "-1", "--format=%H", "--", "checks/append_only.py")
    wrong = set(git("diff", *changed, "HEAD", "--", *SEALED))
    if beginning:
        wrong |= {line for line in git("log", "--format=", *changed, f"{beginning[0]}..HEAD", "--", *SEALED) if line}
    for line in sorted(wrong):
        print(f"changed after it was added: {line}")
    print(f"{len(git('ls-files', *SEALED))} sealed files, {len(wrong)} changed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
