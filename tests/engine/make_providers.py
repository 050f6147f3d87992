"""Which directives Parsl's providers write, and how they call the commands of batch systems: recorded with stand-ins.

    $(python3.11 tests/environments.py --path sdk-4.19.0) tests/engine/make_providers.py  # writes the golden file

Our scripts are held to these directives, in this order, and our command lines to these words
(`crates/engine/src/provider/batch/tests.rs`). What we add is listed there.
"""

import copy
import json
import os
import re
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[2] / "crates/engine/tests/golden/providers.json"
ANSWERS = {
    "sbatch": "Submitted batch job 7",
    "sacct": "",
    "scancel": "",
    "qsub": "7.server",
    "qdel": "",
    "bsub": "Job <7> is submitted to queue <normal>.",
    "bkill": "",
    "condor_submit": "Submitting job(s).\n1 job(s) submitted to cluster 7.",
    "condor_rm": "",
}
STAND_IN = """#!/bin/bash
word="${{0##*/}}"; for one; do word="$word|$one"; done; echo "$word" >> "$CALLS"
cat << 'END'
{answer}
END
"""
DIRECTIVES = {
    "SlurmProvider": "#SBATCH",
    "PBSProProvider": "#PBS",
    "TorqueProvider": "#PBS",
    "LSFProvider": "#BSUB",
    "GridEngineProvider": "#$",
    "CondorProvider": "",
}

# Provider, its options.
CASES = [
    ("SlurmProvider", {}),
    (
        "SlurmProvider",
        {
            "partition": "gpu",
            "account": "abc123",
            "qos": "high",
            "constraint": "a100",
            "clusters": "c1",
            "nodes_per_block": 2,
            "cores_per_node": 16,
            "mem_per_node": 64,
            "gpus_per_node": 4,
            "gres": "gpu:a100:4",
            "walltime": "01:30:45",
            "scheduler_options": "#SBATCH --mail-type=NONE\n#SBATCH --signal=B:USR1@60",
            "exclusive": False,
        },
    ),
    ("PBSProProvider", {}),
    (
        "PBSProProvider",
        {
            "queue": "debug-scaling",
            "account": "abc123",
            "nodes_per_block": 2,
            "cpus_per_node": 32,
            "select_options": "ngpus=4",
            "walltime": "1:00:00",
            "scheduler_options": "#PBS -l filesystems=home:eagle",
        },
    ),
    ("PBSProProvider", {"select_options": ":ngpus=4"}),
    ("TorqueProvider", {}),
    ("TorqueProvider", {"queue": "batch", "account": "abc", "nodes_per_block": 3, "scheduler_options": "#PBS -l mem=1gb"}),
    ("LSFProvider", {}),
    (
        "LSFProvider",
        {
            "project": "abc123",
            "queue": "batch",
            "nodes_per_block": 2,
            "walltime": "02:30:00",
            "scheduler_options": "#BSUB -alloc_flags smt4",
        },
    ),
    ("LSFProvider", {"request_by_nodes": False, "cores_per_block": 40, "cores_per_node": 16}),
    ("GridEngineProvider", {}),
    ("GridEngineProvider", {"queue": "all.q", "walltime": "02:00:00", "scheduler_options": "#$ -pe mpi 12"}),
    ("CondorProvider", {}),
    (
        "CondorProvider",
        {
            "nodes_per_block": 2,
            "cores_per_slot": 4,
            "mem_per_slot": 2.5,
            "environment": {"A": "b c"},
            "project": '"mine"',
            "requirements": 'OpSys == "LINUX"',
            "transfer_input_files": ["/data/a", "/data/b"],
            "scheduler_options": "+x = 1",
        },
    ),
]


def recorded(name, options):
    """The directives of the script of a provider of the installed Parsl, and the calls of its submission and its end."""
    import parsl.providers

    with tempfile.TemporaryDirectory() as directory:
        scripts, calls = Path(directory) / "scripts", Path(directory) / "calls"
        scripts.mkdir()
        os.environ["CALLS"] = str(calls)
        os.environ["PATH"] = f"{directory}:{os.environ['PATH']}"
        for program, answer in ANSWERS.items():
            path = Path(directory) / program
            path.write_text(STAND_IN.format(answer="7" if name == "GridEngineProvider" and program == "qsub" else answer))
            path.chmod(0o755)
        provider = getattr(parsl.providers, name)(**copy.deepcopy(options))
        provider.script_dir = str(scripts)
        job = provider.submit("COMMAND", 1, "parsl.x.block-0")
        provider.cancel([job])
        script = next(path for path in scripts.iterdir() if path.suffix != ".script")

        def plain(text):
            text = text.replace(str(scripts), "/scripts")
            return re.sub(r"(parsl[.])*parsl[.]x[.]block-0[.][0-9.]+[0-9]", "NAME", text)

        prefix = DIRECTIVES[name]
        lines = [plain(line.strip()) for line in script.read_text().splitlines()]
        directives = [re.sub(" +", " ", line) for line in lines if line.startswith(prefix) and line not in ("", "#!/bin/bash")]
        made = [plain(line) for line in calls.read_text().splitlines() if not line.startswith("sacct")]
        return {"provider": name, "options": options, "directives": directives, "calls": made}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps([recorded(*case) for case in CASES], indent=1) + "\n")
