"""Fails when a crate depends on another of ours and the table below doesn't allow it.

ARCHITECTURE.md draws the same arrows.
"""

import json
import subprocess
import sys

ALLOWED = {
    "wire": set(),
    "daemon": set(),
    "broker": set(),
    "client": {"wire"},
    "engine": {"wire"},
    "manager": {"wire"},
    "store": {"wire"},
    "identity": {"store", "wire"},
    "service": {"identity", "store", "broker", "client", "wire", "daemon"},
    "endpoint": {"engine", "manager", "client", "wire", "daemon"},
    # It measures the parts, so it may use each; no crate may use it.
    "bench": {"broker", "client", "engine", "wire"},
}

# What a crate's tests may use besides.
ALLOWED_IN_TESTS = {"client": {"broker"}, "endpoint": {"broker"}, "engine": {"engine", "daemon"}}


def main():
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    packages = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["packages"]
    wrong = [f"{package['name']} is not in the table" for package in packages if package["name"] not in ALLOWED]
    arrows = 0
    for package in packages:
        name = package["name"]
        for dependency in package["dependencies"]:
            if "path" not in dependency:
                continue
            arrows += 1
            allowed = ALLOWED.get(name, set())
            if dependency["kind"] == "dev":
                allowed = allowed | ALLOWED_IN_TESTS.get(name, set())
            if dependency["name"] not in allowed:
                wrong.append(f"{name} -> {dependency['name']} ({dependency['kind'] or 'normal'})")
    for line in wrong:
        print(f"arrow not allowed: {line}")
    print(f"{len(packages)} crates, {arrows} arrows between them, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
