"""Takes golden files from the PyPI packages of the environment this runs in.

    PYTHON=$(python3.11 tests/environments.py --path sdk-4.19.0)
    $PYTHON crates/wire/tests/golden/capture.py [--user NAME] [PART ...]

Parts: `messages` (packed by globus_compute_common), `buffers` (packed by the SDK), `sdk` and `auth` (what the SDK
and globus-sdk send, and answers they accept), `endpoint` (registrations and messages of real endpoints), `manager`
(a real manager's start document; as root, with the name of a plain user who has a home directory).

Golden files are append-only: what exists is never written again, and a run says what it added. Files lie in a
directory per package and version, and their endings say what they are: `.request.json`, `.answer.json`, `.form`,
`.query`, `.bin` (a message). Answers are ours, kept because the client took them.
"""

import argparse
import importlib
from importlib.metadata import version
from pathlib import Path

PARTS = ("messages", "buffers", "sdk", "auth", "endpoint", "manager")


def main():
    parser = argparse.ArgumentParser(description="Take golden files from the PyPI packages of this environment.")
    parser.add_argument("--user", help="a plain user with a home directory, for the part `manager`")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all without any")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    for package in ("globus-compute-sdk", "globus-compute-endpoint", "globus-compute-common", "globus-sdk"):
        print(package, version(package))
    shelf = Shelf(Path(__file__).resolve().parent)
    for part in options.parts or PARTS:
        if part == "manager" and not options.user:
            print("manager: left out without --user")
            continue
        importlib.import_module(f"capturing.{part}").capture(shelf, options)
    print(f"{len(shelf.added)} files added, {shelf.kept} left as they were")


class Shelf:
    """The golden files."""

    def __init__(self, root):
        self.root = root
        self.added = []
        self.kept = 0

    def put(self, package, name, content):
        """Keeps `content` under the package's version, unless there is such a file."""
        path = self.root / f"{package.removeprefix('globus-compute-')}-{version(package)}" / name
        if path.exists():
            self.kept += 1
            return
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        self.added.append(path)
        print("added", path.relative_to(self.root))


if __name__ == "__main__":
    main()
