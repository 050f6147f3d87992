"""Accepted means on disk: a submit is answered after its tasks were synced, and refused when they can't be."""

import re
from contextlib import contextmanager

import pytest

from processes import until
from rest import Refused

TASK = "5\n00\nab"
ENDPOINT = {
    "endpoint_name": "nobody",
    "high_assurance": False,
    "metadata": {"endpoint_version": "3.8.0", "hostname": "h", "local_user": "u", "endpoint_config": "engine: {}"},
}


@contextmanager
def unsynced(testbed, service):
    """While this holds, each sync that the service asks for fails. Yields the file of those that it asked for."""
    trace = testbed.directory / "trace"
    fails = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"]
    command = ["strace", "-f", "-y", *fails, "-o", trace, "-p", service.process.pid]
    tracer = testbed.start("strace", command, testbed.environment())
    tracer.wait_for("attached")
    yield trace
    tracer.stop()


def test_what_cannot_be_synced_is_not_accepted(testbed):
    service = testbed.service()
    rest = service.rest()
    function = rest.post("/v3/functions", {"function_name": "f", "function_code": "7\n01\ngASV", "serialized": True})["function_uuid"]
    endpoint = rest.post("/v3/endpoints", ENDPOINT)["endpoint_id"]

    def waiting():
        return rest.get(f"/v2/endpoints/{endpoint}/status")["farcall"]["tasks"]["waiting"]

    def submit():
        return rest.post(f"/v3/endpoints/{endpoint}/submit", {"tasks": {function: [TASK]}})

    submit()
    assert waiting() == 1
    with unsynced(testbed, service) as trace:
        with pytest.raises(Refused) as refused:
            submit()
    assert refused.value.status == 503, refused.value
    assert re.search(r"sync\(\d+<.*/farcall\.db-wal>\) += -1 EIO", trace.read_text()), trace.read_text()
    # It serves again as soon as the disk does.
    until(lambda: submitted(submit), "a submit is accepted again", 30)
    assert waiting() == 2


def submitted(submit):
    try:
        return submit()
    except Refused as refused:
        assert refused.status == 503, refused
        return None
