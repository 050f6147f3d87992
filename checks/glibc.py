"""Fails when a program needs a newer glibc than allowed: prints the newest version of any glibc symbol that it uses.

    python3.11 checks/glibc.py PROGRAM 2.28
"""

import re
import subprocess
import sys


def newest(program):
    """The highest version among the symbols of glibc that a program needs."""
    listed = subprocess.run(["objdump", "-T", program], capture_output=True, text=True, check=True).stdout
    versions = {tuple(map(int, found.split("."))) for found in re.findall(r"\bGLIBC_([0-9.]+)", listed)}
    return max(versions, default=(0,))


def main():
    program, limit = sys.argv[1], tuple(map(int, sys.argv[2].split(".")))
    found = newest(program)
    shown = ".".join(map(str, found))
    if found > limit:
        sys.exit(f"{program} needs glibc {shown}, and {sys.argv[2]} is the newest it may need")
    print(f"{program} needs glibc {shown}")


if __name__ == "__main__":
    main()
