"""The Python side of the tests: one virtual environment per set of PyPI packages.

Run as a script it makes what is missing and prints where each environment is; `conftest.py` imports it to find
them. An environment is a list of exact versions in `requirements/NAME.txt`. It lives in the user's cache, named by
a digest of that list and of the interpreter, so every clone on a machine shares it and an edited list never meets
an old environment. It may never install anything that the list does not name.

    python3.11 tests/environments.py            # all of them
    python3.11 tests/environments.py sdk-3.8.0  # one
    python3.11 tests/environments.py --path sdk-3.8.0  # prints nothing but its interpreter
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Every pinned package has a binary wheel for this Python; newer ones lack some, older ones other.
PYTHON = (3, 11)
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
COMPLETE = ".complete"


def names():
    """The environments there are: `tests` runs pytest, `amqp-clients` holds clients of AMQP, the others hold an SDK and an
    endpoint of one release."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def python(name, base=None):
    """The interpreter of the environment `name`, whether or not it has been made."""
    return _directory(name, base) / "bin" / "python"


def ready(name):
    """Whether the environment `name` is there and whole."""
    return (_directory(name) / COMPLETE).exists()


def make(name, base=None):
    """Makes the environment `name` unless it is there, and returns its interpreter. `base`: an interpreter of another version
    than the usual one; for the lists in `requirements/clients`.

    A virtual environment can't be moved once made, so it is built in place, and only a file written last makes it
    count. Two runs at once take turns.
    """
    directory = _directory(name, base)
    interpreter = directory / "bin" / "python"
    if (directory / COMPLETE).exists():
        return interpreter
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.parent / f"{directory.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (directory / COMPLETE).exists():
            return interpreter
        if directory.exists():
            shutil.rmtree(directory)
        _run(base or _base(), "-m", "venv", directory)
        install = ["install", "--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
        _run(interpreter, "-m", "pip", *install, "--requirement", REQUIREMENTS / f"{name}.txt")
        _run(interpreter, "-m", "pip", "--disable-pip-version-check", "check")
        (directory / COMPLETE).touch()
    return interpreter


def node_modules(source):
    """The `node_modules` of the lock file in `source`, installed once into the user's cache. Nothing of a package runs
    while it is installed."""
    lock = Path(source) / "package-lock.json"
    directory = _cache() / f"node-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not (directory / COMPLETE).exists():
        directory.mkdir(parents=True, exist_ok=True)
        with open(directory.parent / f"{directory.name}.lock", "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            if not (directory / COMPLETE).exists():
                for name in ("package.json", "package-lock.json"):
                    shutil.copy(Path(source) / name, directory)
                done = subprocess.run(
                    ["npm", "ci", "--silent", "--ignore-scripts"], cwd=directory, capture_output=True, text=True
                )
                if done.returncode != 0:
                    raise SystemExit(f"npm ci failed for {source}:\n{done.stdout}{done.stderr}")
                (directory / COMPLETE).touch()
    return directory / "node_modules"


def _cache():
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "farcall" / "environments"


def _directory(name, base=None):
    wanted = REQUIREMENTS / f"{name}.txt"
    if not wanted.exists():
        raise SystemExit(f"no environment is called {name}; there are {', '.join(names())}")
    digest = hashlib.sha256(wanted.read_bytes() + os.fsencode(base or _base())).hexdigest()[:16]
    return _cache() / f"{name.replace('/', '-')}-{digest}"


def _base():
    """The interpreter that environments are made from: ours when it has the right version, else one on the PATH."""
    if sys.version_info[:2] == PYTHON:
        return os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    wanted = "python" + ".".join(map(str, PYTHON))
    found = shutil.which(wanted)
    if found is None:
        raise SystemExit(f"{wanted} is not on the PATH; the PyPI packages of the tests need it")
    answer = subprocess.run([found, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, check=True)
    return os.path.realpath(answer.stdout.strip())


def _run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")


def main():
    if sys.argv[1:2] == ["--path"]:
        print(make(sys.argv[2]))
        return
    wanted = sys.argv[1:] or names()
    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        for name, interpreter in zip(wanted, pool.map(make, wanted)):
            print(f"{name}: {interpreter}", flush=True)
    print(f"{len(wanted)} environments are ready ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()
