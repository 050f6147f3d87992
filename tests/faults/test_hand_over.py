"""The endpoint keeps each task and result until the next program has it safely."""

import json
import os
import re
import signal

import pytest

from processes import alive, until
from testbed import Endpoint


def spool(endpoint):
    return endpoint.directory / endpoint.name / "unacked_results"


def kept(endpoint):
    """Whether a result lies in the spool: in a file of its own, or among those of the last moments."""
    for path in spool(endpoint).iterdir():
        try:
            if path.stat().st_size:
                return True
        except FileNotFoundError:
            continue  # sent in this moment
    return False


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_result_nobody_could_take_is_sent_at_the_next_start(testbed, gated, end):
    service = testbed.service()
    endpoint = testbed.endpoint(service, workers=1)
    script = gated.submit(service, endpoint, """
with executor(endpoint) as ex:
    only = submitted(ex, "only")
    report("submitted")
    report(outcome(only))
""")
    gated.wait_until_begun("only")
    service.kill()
    gated.open("only")
    until(lambda: kept(endpoint), "the result lies in the spool")
    getattr(endpoint, end)()
    assert kept(endpoint)

    service.start()
    endpoint.start()
    assert script.finish() == ["submitted", ["value", "only ran"]]
    gated.assert_begun_once("only")
    endpoint.stop()
    assert not kept(endpoint)


def test_an_orderly_stop(testbed, gated):
    """What runs has its grace, what has not begun goes back and runs after the next start."""
    service = testbed.service()
    endpoint = testbed.endpoint(service, workers=1)
    script = gated.submit(service, endpoint, """
with executor(endpoint) as ex:
    quick, waiting = submitted(ex, "quick"), submitted(ex, "waiting")
    report("submitted")
    report(outcome(quick))
    report(outcome(waiting))
    slow = submitted(ex, "slow")
    report("submitted")
    report(outcome(slow))
""")
    gated.wait_until_begun("quick")
    os.kill(endpoint.process.pid, signal.SIGTERM)
    gated.open("quick")
    assert script.wait_for_report(2) == ["value", "quick ran"]
    assert endpoint.process.wait() == 0
    assert not gated.begun("waiting")

    gated.open("waiting")
    endpoint.start()
    assert script.wait_for_report(3) == ["value", "waiting ran"]
    gated.assert_begun_once("waiting")

    # Beyond the grace, a task ends with what was lost.
    worker = gated.wait_until_begun("slow")
    endpoint.stop()
    assert not alive(worker)
    endpoint.start()
    *_, [kind, name, text] = script.finish()
    assert (kind, name) == ("error", "TaskExecutionFailed")
    assert "ManagerLost: Task failure due to loss of manager" in text
    gated.assert_begun_once("slow")


def test_a_second_endpoint_of_the_same_id_waits_and_says_why(testbed):
    service = testbed.service()
    credentials = registered(service)
    first = from_document(testbed, service, "first", credentials)
    until(first.online, "the first one is online", 60)
    second = from_document(testbed, service, "second", credentials)
    conflict = "another process already takes this endpoint's tasks"
    until(lambda: conflict in second.process.output(), "the second one says what is wrong", 60)
    assert not (second.directory / second.name / "journal").exists(), "and touches nothing"
    first.stop()
    reports = service.sdk("4.19.0").run(
        """
        import sys
        with executor(sys.argv[1]) as ex:
            report(ex.submit(len, "four").result(timeout=60))
        """,
        second.id,
    )
    assert reports == [4]


def test_credentials_that_are_refused_end_the_endpoint_in_order(testbed):
    """Nothing of it is touched."""
    service = testbed.service()
    good = json.dumps(registered(service))
    wrong = re.sub(r"amqp://([^:]+):[^@]+@", r"amqp://\1:notthis@", good)
    assert wrong != good
    endpoint = from_document(testbed, service, "refused", json.loads(wrong))
    assert endpoint.process.wait(60) == 77
    assert "the broker does not accept the credentials" in endpoint.process.output()
    assert "notthis" not in endpoint.process.output(), "no password on a terminal"
    assert not (endpoint.directory / "refused" / "journal").exists()


def registered(service):
    """What the service answers to a registration."""
    return service.rest().post(
        "/v3/endpoints", {"endpoint_name": "by-document", "metadata": {"endpoint_version": "3.8.0"}}
    )


def from_document(testbed, service, name, credentials):
    """An endpoint as a manager starts it: with credentials on standard input."""
    endpoint = Endpoint(testbed, service, name)
    endpoint.directory.mkdir(exist_ok=True)
    document = {"amqp_creds": credentials, "config": json.dumps({"engine": {"type": "GlobusComputeEngine"}})}
    endpoint.process = testbed.start(
        name,
        endpoint.command("start", name, "--die-with-parent"),
        testbed.environment(endpoint.python),
        json.dumps(document),
    )
    endpoint.id = credentials["endpoint_id"]
    testbed.endpoints.append(endpoint)
    return endpoint
