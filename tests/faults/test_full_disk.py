"""The disk of the endpoint is full from one write on, whichever it is: each write of journal, spool, log, PID file and
the others is the first to fail in a run of its own.

The endpoint says what is wrong, or goes on. When there is room again it goes on or is started again, and every task that
was given out has exactly one result.
"""

import re
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ledger import Ledger
from processes import until

# Runs at the same time.
AT_ONCE = 3
# A run in which nothing fails takes fewer.
MOST = 200


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    built = tmp_path_factory.mktemp("full-disk") / "full_disk.so"
    source = Path(__file__).with_name("full_disk.c")
    done = subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", built, source, "-ldl"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return built


class Disk:
    """What the library is told, and what it tells."""

    def __init__(self, testbed, library, name, full_at, kind=None):
        self.directory = testbed.directory / f"disk-{name}"
        self.directory.mkdir()
        (self.directory / "count").write_bytes(struct.pack("ll", 0, 0))
        self.kind = kind
        self.library = library
        self.full_at = full_at

    def variables(self, below):
        kind = dict(zip(("FULL_WHAT", "FULL_WHERE"), self.kind)) if self.kind else {}
        return kind | {
            "LD_PRELOAD": self.library,
            "FULL_BELOW": below,
            "FULL_AT": self.full_at,
            "FULL_COUNT": self.directory / "count",
            "FULL_MENDED": self.directory / "mended",
            "FULL_LOG": self.directory / "failed",
        }

    def writes(self):
        return struct.unpack("ll", (self.directory / "count").read_bytes())[0]

    def failed(self):
        """What failed, in order: `write /…/journal/…`."""
        try:
            return [line.split(" ", 1)[1] for line in (self.directory / "failed").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def mend(self):
        (self.directory / "mended").touch()


def one_run(testbed, rabbitmq, library, full_at, kind=None):
    """A start, tasks, and a stop, with a disk that is full from the write `full_at` on, or from the first of a kind, which is
    an act and a part of a path. Returns what failed first."""
    name = f"full-{full_at}"
    ledger = Ledger(testbed, rabbitmq, name)
    disk = Disk(testbed, library, name, full_at, kind)
    variables = disk.variables(ledger.endpoint.directory)
    ledger.give(3)
    ledger.start(**variables)
    process = ledger.endpoint.process
    until(lambda: ledger.answered() >= 3 or not process.running(), f"{name} answers or ends", 90)
    if process.running():
        # What is answered needs no disk; what is given out now does.
        ledger.give(2, size=100_000)
        until(lambda: ledger.answered() >= 5 or not process.running(), f"{name} answers or ends", 90)
    if process.running():
        ledger.endpoint.stop()
    elif process.wait() != 0:
        # It did not come to run: one clear word to whoever started it, to the service otherwise, and nothing taken.
        said = process.output() + str(ledger.errors())
        assert "No space left on device" in said, said
        assert not ledger.begun()
    failed = disk.failed()
    disk.mend()
    count = disk.writes()
    # With room again it does what is left.
    ledger.start(**variables)
    # Neither the spool nor the journal could be written: it can't know what it has sent.
    forgetful = {"unacked_results", "journal"} <= {Path(line).parent.name for line in failed}
    outcomes = ledger.close(forgetful)
    # A block whose script can't be written works for nobody: tasks get that as their reason.
    blocked = any("/submit_scripts/" in line for line in failed)
    errors = [text for code, text in outcomes.values() if code is not None]
    assert all(blocked and "No space left on device" in text for text in errors), (failed[:3], errors)
    left = [path.name for path in (ledger.endpoint.directory / name / "unacked_results").iterdir() if path.stat().st_size]
    assert left == [], left
    return (failed[0].split("/")[0].strip(), Path(failed[0].split(" ", 1)[1])) if failed else count


def name(path):
    """A file's name, without the id in that of a draft."""
    return re.sub(r"\.[0-9a-f]{8}-[0-9a-f-]{27}$", "", path.name)


def test_whichever_write_is_the_first_to_fail(testbed, rabbitmq, library):
    writes = one_run(testbed, rabbitmq, library, 0)
    assert 20 < writes < MOST
    with ThreadPoolExecutor(AT_ONCE) as pool:
        # A run that is stopped by a failure writes otherwise than one that is not; beyond the last write nothing fails.
        firsts = list(pool.map(lambda number: one_run(testbed, rabbitmq, library, number), range(1, writes + 1)))
    failed = [first for first in firsts if isinstance(first, tuple)]
    kinds = set(map(kind_of, failed))
    print(writes, sorted(kinds))
    # Which write is which differs from run to run, for several threads write: what no run began with begins one now.
    missed = [kind for kind in KINDS if kind not in kinds]
    for number, kind in enumerate(missed, MOST):
        first = one_run(testbed, rabbitmq, library, number, part_of_path(*kind))
        assert isinstance(first, tuple) and kind_of(first) == kind, (kind, first)


# Where files have names of their own, the directory stands for them.
DIRECTORIES = ("journal", "unacked_results")
KINDS = [
    ("create", ".daemon.host"), ("write", ".daemon.host"), ("create", ".daemon.pid"), ("write", ".daemon.pid"),
    ("write", ".endpoint.json.new"), ("rename", "endpoint.json"),
    ("create", "endpoint.log"), ("write", "endpoint.log"),
    ("mkdir", "journal"), ("create", "journal"), ("write", "journal"), ("sync", "journal"),
    ("mkdir", "unacked_results"), ("create", "unacked_results"), ("write", "unacked_results"),
]  # fmt: skip


def kind_of(first):
    what, path = first
    return what, path.parent.name if path.parent.name in DIRECTORIES else name(path)


def part_of_path(what, where):
    """How to find the first write of a kind."""
    return what, f"/{where}/" if where in DIRECTORIES and what != "mkdir" else f"/{where}"
