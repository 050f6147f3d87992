"""While the database server is away, everybody is told so and nothing is lost; when it is back, everything goes on by itself."""

import time
import urllib.error
import urllib.request

import pytest
from processes import until
from rest import Refused

SESSION = """
import sys, time
endpoint, gate = sys.argv[1:3]

def gated(gate, value):
    import pathlib, time
    end = time.monotonic() + 150
    while not pathlib.Path(gate).exists():
        if time.monotonic() > end:
            return "the gate never opened"
        time.sleep(0.02)
    return value

with executor(endpoint) as ex:
    futures = [ex.submit(gated, gate, value) for value in range(6)]
    while not all(future.task_id for future in futures):
        time.sleep(0.05)
    report("submitted")
    report([future.result(timeout=150) for future in futures])
"""
# Longer than the service waits for its database before it refuses.
AWAY_S = 20


def ask(url, form=None):
    """The status, headers and text of an answer."""
    try:
        with urllib.request.urlopen(url, form, timeout=40) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


@pytest.mark.sqlite("it has a database server of its own")
def test_nothing_is_lost(testbed, postgres):
    service = testbed.service(database=postgres.create("away"))
    endpoint = testbed.endpoint(service)
    gate = testbed.directory / "gate"
    script = service.sdk("4.19.0").start(SESSION, endpoint.id, gate)
    script.wait_for_report()
    rest = service.rest()
    rest.get("/v2/endpoints")

    began = time.monotonic()
    postgres.stop("immediate")
    # Results come while the database is away.
    gate.touch()
    with pytest.raises(Refused) as refused:
        rest.get("/v2/endpoints")
    assert refused.value.status == 503 and "cannot reach its database" in str(refused.value), refused.value
    form = b"grant_type=client_credentials&client_id=%s&client_secret=x" % service.identity[0].encode()
    page = "/v2/oauth2/authorize?client_id=4cf29807-cf21-49ec-9443-ff9a3fb9f81c&response_type=code&redirect_uri=x"
    for path, body, text in [
        ("/v2/oauth2/token", form, "cannot reach its database"),
        (page, None, "cannot do this at the moment"),
        ("/readyz", None, "not ready: the database cannot be reached"),
    ]:
        status, headers, said = ask(service.origin() + path, body)
        assert status == 503 and text in said, f"{path}: {status} {said}"
        assert path == "/readyz" or int(headers["Retry-After"]) == 5
    assert ask(service.origin() + "/healthz")[0] == 200
    time.sleep(max(0, AWAY_S - (time.monotonic() - began)))
    assert service.process.running()
    postgres.start()

    assert script.finish()[1] == list(range(6))
    until(endpoint.online, "the endpoint is online", 60)
    assert ask(service.origin() + "/readyz")[0] == 200
    log = service.process.output()
    assert 1 <= log.count("the database cannot be used") <= 2, log
    assert log.count(" ERROR ") < 15, log
