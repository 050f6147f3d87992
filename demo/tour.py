"""Runs the examples one after another and shows what they print, and how long each took."""

import subprocess
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(name, *arguments):
    print(f"\n\033[1mpython {' '.join([f'examples/{name}', *arguments])}\033[0m", flush=True)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, EXAMPLES / name, *arguments], stdout=subprocess.PIPE, check=True)
    took = time.perf_counter() - began
    shown = done.stdout.decode().rstrip()
    # A progress bar overwrites itself: only its last state is shown.
    for line in shown.split("\n"):
        print("  ", line.rstrip("\r").rpartition("\r")[2])
    print(f"   ({took:.2f} s, the SDK's own start included)", flush=True)
    return shown.strip()


run("hello.py")
run("many_tasks.py")
run("shell_command.py")
run("error.py")
run("reload.py", run("reload.py"))
run("shared_function.py", run("shared_function.py"))
