"""No task is lost when a program is killed: each is killed once, at its worst moment."""

import os

from processes import alive, until


def test_the_service_dies_between_a_submit_and_its_result(testbed, gated):
    service = testbed.service()
    endpoint = testbed.endpoint(service, workers=1)
    script = gated.submit(service, endpoint, """
with executor(endpoint) as ex:
    first, second = submitted(ex, "first"), submitted(ex, "second")
    report("submitted")
    report(outcome(first))
    report(outcome(second))
""")
    gated.wait_until_begun("first")

    service.kill()
    # The first result is ready while nobody can take it.
    gated.open("first", "second")
    service.start()

    assert script.finish() == ["submitted", ["value", "first ran"], ["value", "second ran"]]
    gated.assert_begun_once("first", "second")


def test_the_endpoint_dies_while_a_task_waits(testbed, gated):
    """The task that ran ends with an error that names what was lost; the one that waited runs after the restart."""
    service = testbed.service()
    endpoint = testbed.endpoint(service, workers=1)
    script = gated.submit(service, endpoint, """
with executor(endpoint) as ex:
    running, waiting = submitted(ex, "running"), submitted(ex, "waiting")
    report("submitted")
    report(outcome(waiting))
    report(outcome(running))
""")
    worker = gated.wait_until_begun("running")
    assert not gated.begun("waiting")

    endpoint.kill()
    until(lambda: not alive(worker), "the worker ends with its endpoint")
    gated.open("waiting")
    endpoint.start()

    [_, waiting, running] = script.finish()
    assert waiting == ["value", "waiting ran"]
    assert running[:2] == ["error", "TaskExecutionFailed"]
    assert "ost" in running[2]
    gated.assert_begun_once("running", "waiting")


def test_a_worker_dies_while_it_runs(testbed, gated):
    """Its task ends with an error that names the lost worker; the next one runs on a new worker."""
    service = testbed.service()
    endpoint = testbed.endpoint(service, workers=1)
    script = gated.submit(service, endpoint, """
with executor(endpoint) as ex:
    running, waiting = submitted(ex, "running"), submitted(ex, "waiting")
    report("submitted")
    report(outcome(running))
    report(outcome(waiting))
""")
    worker = gated.wait_until_begun("running")

    os.kill(worker, 9)
    gated.open("waiting")

    [_, running, waiting] = script.finish()
    assert running[:2] == ["error", "TaskExecutionFailed"]
    assert "WorkerLost" in running[2]
    assert waiting == ["value", "waiting ran"]
    gated.assert_begun_once("running")
    assert gated.begun("waiting") != [str(worker)]
