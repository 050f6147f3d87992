"""How Parsl's launchers call the programs of batch systems and MPI: recorded by letting them call stand-ins.

    $(python3.11 tests/environments.py --path sdk-4.19.0) tests/engine/make_launchers.py  # writes the golden file

Our launchers are held to these words, but for the directory that the files lie in (`crates/engine/src/launcher.rs`).
GNU parallel is not among them: what Parsl passes to it works only after `parallel --record-env`.
"""

import inspect
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[2] / "crates/engine/tests/golden/launchers.json"
COMMAND = "echo node of $JOBNAME"
SLURM = {"SLURM_JOB_NAME": "job", "SLURM_CPUS_ON_NODE": "8"}

# Launcher, its options, nodes, what the batch system says of the job.
CASES = [
    ("SrunLauncher", {}, 1, {**SLURM, "SLURM_JOB_NUM_NODES": "1"}),
    ("SrunLauncher", {"overrides": "-c 128 --gpus=4"}, 2, {**SLURM, "SLURM_JOB_NUM_NODES": "2"}),
    ("SrunLauncher", {"overrides": '--gpu-bind=map_gpu:"1,2" -c $CORES', "debug": False}, 2, {**SLURM, "SLURM_JOB_NUM_NODES": "2"}),
    ("SrunMPILauncher", {}, 2, {**SLURM, "SLURM_JOB_NUM_NODES": "2"}),
    ("SrunMPILauncher", {"overrides": "-c 2"}, 2, {**SLURM, "SLURM_JOB_NUM_NODES": "5"}),
    ("SrunMPILauncher", {}, 4, {**SLURM, "SLURM_JOB_NUM_NODES": "2"}),
    ("AprunLauncher", {"overrides": "-cc depth"}, 3, {}),
    ("JsrunLauncher", {"overrides": "-g 1"}, 2, {}),
    ("MpiExecLauncher", {}, 1, {}),
    ("MpiExecLauncher", {"bind_cmd": "--cpu-bind", "overrides": "--ppn 1"}, 2, {"PBS_NODEFILE": "nodes of the job"}),
    ("MpiRunLauncher", {}, 2, {}),
    ("MpiRunLauncher", {"bash_location": "/usr/bin/bash", "overrides": "--map-by node"}, 2, {}),
]
PROGRAMS = ["srun", "aprun", "jsrun", "mpiexec", "mpirun"]
STAND_IN = '#!/bin/bash\nword="${0##*/}"; for one; do word="$word|${one##*/golden/}"; done; echo "$word" >> "$CALLS"\n'


def called(launcher, options, nodes, environment):
    """The calls that a launcher of the installed Parsl leads to, the command's file, and the machines' file."""
    import parsl.launchers

    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory) / "golden"
        directory.mkdir()
        for name in PROGRAMS:
            (directory / name).write_text(STAND_IN)
            (directory / name).chmod(0o755)
        (directory / "nodes").write_text("b\na\nb\n")
        built = getattr(parsl.launchers, launcher)(**options)
        place = {"script_dir": str(directory)} if "script_dir" in inspect.signature(built.__call__).parameters else {}
        script = built(COMMAND, 1, nodes, **place)
        environment = {
            **environment,
            **({"PBS_NODEFILE": str(directory / "nodes")} if "PBS_NODEFILE" in environment else {}),
            "PATH": f"{directory}:{os.environ['PATH']}",
            "CALLS": str(directory / "calls"),
            "JOBNAME": "job",
        }
        # Without `debug`, a launcher of theirs ends with status 1 whatever has happened.
        subprocess.run(["bash", "-c", script], cwd=directory, env=environment, stdout=subprocess.DEVNULL, check=False)
        hosts = directory / "job.nodes"
        return {
            "launcher": {"type": launcher, **options},
            "nodes": nodes,
            "environment": {name: value for name, value in environment.items() if name.startswith(("SLURM", "PBS"))}
            | ({"PBS_NODEFILE": "b\na\nb\n"} if "PBS_NODEFILE" in environment else {}),
            "calls": sorted((directory / "calls").read_text().splitlines()),
            "file": (directory / "cmd_job.sh").read_text(),
            "hosts": hosts.read_text() if hosts.exists() else None,
        }


if __name__ == "__main__":
    cases = [called(*case) for case in CASES]
    text = json.dumps(cases, indent=1) + "\n"
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(text)
    else:
        GOLDEN.write_text(text)
