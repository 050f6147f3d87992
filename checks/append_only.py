"""Fails when a commit changed what may only be added to: migrations that ran at a site, bytes captured from the original.

A database that has run a migration never runs it again, and a golden file that is edited to please the code proves
nothing.

Migrations are sealed by their content: `checks/migrations.sha256` lists the hash of each, those of SQLite by the name of
their file, those of PostgreSQL with their directory; lines of it are only ever added. Golden bytes are sealed by their path: the history that counts begins with the last commit that
changed this file. Changing it says, for everyone to see, that what is there now is the new beginning.

Begun anew on 2026-11-21: migrations 2 to 5 grew together, and no site had run them.
Begun anew on 2026-11-30: migration 7 was added in two commits of one day, and no site had run it.
Begun anew on 2026-11-30: migrations moved to the crate `store`, byte for byte, and are sealed by content since.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIGRATIONS = ROOT / "crates/store/src/migrations"
SEALS = "checks/migrations.sha256"
GOLDEN = [
    ":(glob)crates/wire/tests/golden/*-[0-9]*/**",
    "crates/wire/tests/golden/vectors",
]


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def golden_changes():
    """What happened to golden files since the beginning, and is no addition."""
    changed = ["--diff-filter=MDRT", "--name-status"]
    beginning = git("log", "-1", "--format=%H", "--", "checks/append_only.py")
    wrong = set(git("diff", *changed, "HEAD", "--", *GOLDEN))
    if beginning:
        wrong |= {line for line in git("log", "--format=", *changed, f"{beginning[0]}..HEAD", "--", *GOLDEN) if line}
    return wrong


def name(file):
    """What a migration is called in the list: SQLite's, which came first, by the file alone."""
    return str(file.relative_to(MIGRATIONS)).removeprefix("sqlite/")


def migration_changes():
    """Migrations that are not what their seal says, or have none; and seals that were taken away."""
    sealed = dict(reversed(line.split(maxsplit=1)) for line in (ROOT / SEALS).read_text().splitlines())
    present = {name(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in MIGRATIONS.glob("*/*.sql")}
    for migration in sorted(sealed.keys() | present.keys()):
        if migration not in sealed:
            yield f"migration without a seal: add to {SEALS}:  {present[migration]}  {migration}"
        elif sealed[migration] != present.get(migration):
            yield f"migration {'changed' if migration in present else 'removed'} after it was sealed: {migration}"
    beginning = git("log", "--diff-filter=A", "--format=%H", "--", SEALS)
    if beginning:
        for line in git("log", "-p", "--format=", f"{beginning[-1]}..HEAD", "--", SEALS):
            if line.startswith("-") and not line.startswith("---"):
                yield f"seal taken away: {line[1:]}"


def main():
    wrong = sorted(f"changed after it was added: {line}" for line in golden_changes())
    wrong += migration_changes()
    for line in wrong:
        print(line)
    migrations = len(list(MIGRATIONS.glob("*/*.sql")))
    print(f"{len(git('ls-files', *GOLDEN))} golden files, {migrations} migrations, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
