"""No task is lost when a program is killed: each is killed once, at its worst moment.

Functions write a line when they begin, so a test can count how often one ran.
"""

import os

import pytest

from processes import alive, until


@pytest.fixture
def marks(testbed):
    directory = testbed.directory / "marks"
    directory.mkdir()
    return directory


def begun(marks, name):
    path = marks / name
    return path.read_text().splitlines() if path.exists() else []


# `begin` writes this worker's process id into a file, then waits until the test opens the gate.
GATED = """
import sys, time
endpoint, marks = sys.argv[1:]

def gated(marks, name):
    import os, pathlib, time
    with open(pathlib.Path(marks, name), "a") as begun:
        begun.write(f"{os.getpid()}\\n")
    end = time.monotonic() + 120
    while not pathlib.Path(marks, name + ".open").exists():
        if time.monotonic() > end:
            return "the gate never opened"
        time.sleep(0.02)
    return name + " ran"

def submitted(ex, name):
    future = ex.submit(gated, marks, name)
    while future.task_id is None and not future.done():
        time.sleep(0.01)
    return future

def outcome(future):
    error = future.exception(timeout=120)
    return ["value", future.result()] if error is None else ["error", type(error).__name__, str(error)]
"""


def test_the_service_dies_between_a_submit_and_its_result(testbed, marks):
    service = testbed.service()
    endpoint = testbed.endpoint(service, workers=1)
    script = service.sdk("4.19.0").start(
        GATED
        + """
with executor(endpoint) as ex:
    first, second = submitted(ex, "first"), submitted(ex, "second")
    report("submitted")
    report(outcome(first))
    report(outcome(second))
""",
        endpoint.id,
        marks,
    )
    script.wait_for_report()
    until(lambda: begun(marks, "first"), "the first task runs")

    service.kill()
    # The first result is ready while nobody can take it.
    (marks / "first.open").touch()
    (marks / "second.open").touch()
    service.start()

    assert script.finish() == ["submitted", ["value", "first ran"], ["value", "second ran"]]
    assert len(begun(marks, "first")) == 1
    assert len(begun(marks, "second")) == 1


def test_the_endpoint_dies_while_a_task_waits(testbed, marks):
    """The task that ran ends with an error that names what was lost; the one that waited runs after the restart."""
    service = testbed.service()
    endpoint = testbed.endpoint(service, workers=1)
    script = service.sdk("4.19.0").start(
        GATED
        + """
with executor(endpoint) as ex:
    running, waiting = submitted(ex, "running"), submitted(ex, "waiting")
    report("submitted")
    report(outcome(waiting))
    report(outcome(running))
""",
        endpoint.id,
        marks,
    )
    script.wait_for_report()
    [worker] = map(int, until(lambda: begun(marks, "running"), "the first task runs"))
    assert not begun(marks, "waiting")

    endpoint.kill()
    until(lambda: not alive(worker), "the worker ends with its endpoint")
    (marks / "waiting.open").touch()
    endpoint.start()

    [_, waiting, running] = script.finish()
    assert waiting == ["value", "waiting ran"]
    assert running[:2] == ["error", "TaskExecutionFailed"]
    assert "ost" in running[2]
    assert len(begun(marks, "running")) == 1
    assert len(begun(marks, "waiting")) == 1


def test_a_worker_dies_while_it_runs(testbed, marks):
    """Its task ends with an error that names the lost worker; the next one runs on a new worker."""
    service = testbed.service()
    endpoint = testbed.endpoint(service, workers=1)
    script = service.sdk("4.19.0").start(
        GATED
        + """
with executor(endpoint) as ex:
    running, waiting = submitted(ex, "running"), submitted(ex, "waiting")
    report("submitted")
    report(outcome(running))
    report(outcome(waiting))
""",
        endpoint.id,
        marks,
    )
    script.wait_for_report()
    [worker] = map(int, until(lambda: begun(marks, "running"), "the first task runs"))

    os.kill(worker, 9)
    (marks / "waiting.open").touch()

    [_, running, waiting] = script.finish()
    assert running[:2] == ["error", "TaskExecutionFailed"]
    assert "WorkerLost" in running[2]
    assert waiting == ["value", "waiting ran"]
    assert len(begun(marks, "running")) == 1
    assert begun(marks, "waiting") != [str(worker)]
