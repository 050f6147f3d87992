"""Makes the payloads of one client, an interpreter with an SDK, for `versions.py`. Run from this directory:

    .../bin/python make_version_payloads.py >> payloads/clients.jsonl

One line per client: what it submits for `double(21)` by each strategy, and for a shell and an MPI function. The
function is in `__main__`, so that dill sends byte code, which belongs to the interpreter's minor version.
"""

import sys

if "NAMED" not in globals():
    # Once more, under a name that says nothing of the machine: it goes into every function.
    NAMED = True
    with open("make_version_payloads.py") as source:
        exec(compile(source.read(), "make_version_payloads.py", "exec"))
    sys.exit()

import json
import platform

import dill
import globus_compute_sdk
from globus_compute_sdk import MPIFunction, ShellFunction, serialize
from globus_compute_sdk.serialize import concretes
from globus_compute_sdk.serialize.base import SerializationStrategy


def double(x):
    doubled = [x, *(x for _ in range(1))]
    try:
        return sum(doubled)
    finally:
        doubled.clear()


def main():
    pack = serialize.ComputeSerializer.pack_buffers
    data = concretes.DillDataBase64().serialize
    strategies = [s for s in SerializationStrategy._CACHE.values() if s.for_code and s.identifier != "02\n"]
    entries = {}
    for strategy in sorted(strategies, key=lambda strategy: strategy.identifier):
        code = type(strategy)().serialize(double)
        entries[type(strategy).__name__] = pack([code, data((21,)), data({})])
    for function in (ShellFunction, MPIFunction):
        code = concretes.DillCode().serialize(function("echo {word}"))
        entries[function.__name__] = pack([code, data(()), data({"word": "hello"})])
    about = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "sdk": globus_compute_sdk.__version__,
        "dill": dill.__version__,
    }
    json.dump({**about, "entries": entries}, sys.stdout, ensure_ascii=False)
    print()


main()
