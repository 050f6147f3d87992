"""Which client's functions run on which worker: the table of `CONFORMANCE.md`, made by trying.

    $(python3.11 tests/environments.py --path tests) tests/engine/versions.py  # writes it anew

The clients are recorded (`payloads/clients.jsonl`). The workers need an interpreter of each version in `WORKERS`, in
/usr/bin or from pyenv. `FARCALL_WITHOUT_PYTHON=3.8,3.9` names those that a machine can't have; of any other that is
missing, the tests fail.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from worker import JSON, Worker

PAGE = Path(__file__).resolve().parents[2] / "CONFORMANCE.md"
BEGIN, END = "<!-- versions: written by tests/engine/versions.py -->\n", "<!-- /versions -->\n"
WORKERS = [f"3.{minor}" for minor in range(8, 14)]
CLIENTS = [json.loads(line) for line in (Path(__file__).parent / "payloads/clients.jsonl").read_text().splitlines()]

# The strategy that sends byte code and nothing else. The others hold source, too, and worked between all versions so far.
BYTE_CODE = "DillCode"


def without():
    """The versions that are left out, because somebody said so."""
    return {version for version in os.environ.get("FARCALL_WITHOUT_PYTHON", "").split(",") if version}


def interpreters():
    """The workers' interpreters by version. Fails when one is missing that nobody has said may be."""
    found = {}
    for version in WORKERS:
        if version in without():
            continue
        places = [Path("/usr/bin"), *sorted(Path(os.path.expanduser("~/.pyenv/versions")).glob(f"{version}.*/bin"))]
        for place in places:
            if (place / f"python{version}").exists():
                found[version] = str(place / f"python{version}")
    missing = set(WORKERS) - without() - set(found)
    if missing:
        every = ", ".join(f"python{version}" for version in sorted(missing))
        raise AssertionError(f"{every} not found: install with pyenv, or name the versions in FARCALL_WITHOUT_PYTHON")
    return found


def tried(worker, client):
    """What becomes of each of a client's payloads: `runs`, or why it does not."""
    outcomes = {}
    for name, buffer in client["entries"].items():
        shell = name.endswith("Function")
        options = {} if shell else {"result_serializers": [JSON]}
        result = worker.run(buffer, function_python=client["python"] + ".0", **options)
        if result["error_details"] is None and (shell or result["data"] == "11\n42"):
            outcomes[name] = "runs"
        elif f"the function is byte code of Python {client['python']}, and this worker runs" in result["data"]:
            outcomes[name] = "refused by name"
        else:
            outcomes[name] = result["data"]
    return outcomes


def cell(outcomes):
    """One word for a client on a worker; anything unexpected is told in full."""
    others = {name: outcome for name, outcome in outcomes.items() if name != BYTE_CODE and outcome != "runs"}
    if others:
        return json.dumps(others)
    return {"runs": "all", "refused by name": "source"}.get(outcomes[BYTE_CODE], outcomes[BYTE_CODE])


def table():
    """The cells for the workers there are: client, then worker."""
    cells = {name(client): {} for client in CLIENTS}
    for version, interpreter in interpreters().items():
        with tempfile.TemporaryDirectory() as directory:
            worker = Worker(interpreter, directory)
            try:
                for client in CLIENTS:
                    cells[name(client)][version] = cell(tried(worker, client))
            finally:
                worker.close()
    return cells


def name(client):
    return f"Python {client['python']}, SDK {client['sdk']}"


def written():
    """The cells as the page has them."""
    text = PAGE.read_text()
    lines = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip().splitlines()
    heads, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(heads[1:], row[1:])) for row in rows}


def write(cells):
    lines = ["| client | " + " | ".join(WORKERS) + " |", "|---" * (len(WORKERS) + 1) + "|"]
    for client, row in cells.items():
        lines.append(f"| {client} | " + " | ".join(row[version] for version in WORKERS) + " |")
    text = PAGE.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    PAGE.write_text(before + "\n".join(lines) + "\n" + after)


if __name__ == "__main__":
    if without():
        sys.exit("the table needs every version: unset FARCALL_WITHOUT_PYTHON")
    write(table())
