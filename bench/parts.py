"""The parts of the benchmarks: the command of each, how to run it, and how to read what it prints."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SDK = "sdk-4.19.0"
# Whose endpoint `amqp` and `path` measure beside ours: the last one that needs no manager.
UPSTREAM = "sdk-3.8.0"
# Of these units, more is better; of every other, less.
RATES = {"/s", "MB/s"}


def parts(peers=True):
    """Every part with its command, in words that hold on any machine; `{NAME}` stands for what `Paths` finds. Without
    peers: those parts that can measure ours alone, from a directory of built programs."""
    bench = "{binaries}/bench"
    service = f"{bench} service --binaries {{binaries}} --only"
    programs = "--binaries {binaries} --python {python}"
    ours = {
        "engine": f"{bench} engine --python {{python}}",
        "nodes": f"{bench} nodes",
        "service": f"{service} start,submit,single,results,latency,waiting",
        "stored": f"{service} stored --stored 10000000",
        "endpoints": f"{service} endpoints",
        "identity": f"{bench} identity --binaries {{binaries}}",
        "amqp": f"{bench} amqp {programs}",
        "path": f"{bench} path {programs}",
        "broker": "bench/broker --binaries {binaries}/examples",
    }
    if not peers:
        return ours | {"engine": f"{ours['engine']} --without-htex", "broker": f"{ours['broker']} --no-rabbitmq"}
    return {
        "wire": "cargo bench --workspace --bench message",
        **ours,
        "amqp": f"{ours['amqp']} --upstream {{upstream}}",
        "path": f"{ours['path']} --upstream {{upstream}}",
        "upstream": f"bench/upstream {programs}",
        "sdk": "bench/sdk --binaries {binaries}",
        "start": "bench/start --binaries {binaries}",
        "manager": "bench/manager --binaries {binaries} --python {python} --without-upstream",
        "postgres": "bench/postgres --binaries {binaries} --python {python}",
    }


class Paths(dict):
    """What `{binaries}`, `{python}` and `{upstream}` stand for on this machine; a Python's environment is made when it is
    first asked for."""

    def __missing__(self, name):
        environment = {"python": SDK, "upstream": UPSTREAM}[name]
        command = [sys.executable, ROOT / "tests/environments.py", "--path", environment]
        self[name] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        return self[name]


def measurements(command, paths):
    """Runs a part and yields each line that it prints, with the document in it or None. Raises `Failed` when the program
    fails."""
    program = [word.format_map(paths) for word in command.split()]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        for line in running.stdout:
            yield line, json.loads(line) if line.startswith('{"') else None
    if running.returncode != 0:
        raise Failed(f"{' '.join(program)} left with status {running.returncode}")


class Failed(Exception):
    """A part that ended with an error."""
