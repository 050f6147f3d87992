"""After an orderly stop no log has an error, whichever program stops first and whatever is running."""

import re

import pytest
from processes import until

# Tasks of all kinds: done, at work when the stop comes, not begun.
WORK = """
import sys, time

def done():
    return 1

def long():
    import time
    time.sleep(60)

with executor(sys.argv[1]) as ex:
    ex.submit(done).result(timeout=60)
    futures = [ex.submit(long) for _ in range(4)]
    while not all(future.task_id for future in futures):
        time.sleep(0.05)
    report([future.task_id for future in futures])
    time.sleep(60)
"""


def errors(testbed):
    """What any log of the testbed calls an error, and every failure that is no line of a log."""
    logs = [path for path in testbed.directory.rglob("*.log") if path.is_file() and not path.name.startswith("client-")]
    assert {path.name for path in logs} >= {"service.log", "endpoint.log"}, logs
    lines = [(path, line) for path in logs for line in path.read_text(errors="replace").splitlines()]
    return [f"{path.relative_to(testbed.directory)}: {line}" for path, line in lines if re.search(r"\bERROR\b|\bCRITICAL\b|panicked|Traceback", line)]


@pytest.mark.parametrize("first", ["endpoint", "service"])
def test_nobody_logs_an_error(testbed, first):
    service = testbed.service()
    endpoint = testbed.endpoint(service, "ep", workers=2, config={"shutdown_grace": 1})
    work = service.sdk("4.19.0").start(WORK, endpoint.id)
    tasks = work.wait_for_report()
    rest = service.rest()

    def running():
        return [task for task in tasks if rest.get(f"/v2/tasks/{task}")["status"] == "running"]

    until(lambda: len(running()) == 2, "two tasks run", 60)
    for party in [endpoint, service] if first == "endpoint" else [service, endpoint]:
        assert party.process.stop(40) == 0, party.process.output()
    work.process.kill()
    assert errors(testbed) == []
