"""A short session of the stock SDK with our endpoint, on each database: results, an error, a restart and a crash of the service,
and a client that ends before its results are there."""

import uuid

import pytest
from processes import until

pytestmark = pytest.mark.sqlite("it has databases of its own")

STORES = ["sqlite", "postgres"]

# Functions wait for a file that the test makes.
SESSION = """
import sys, time
endpoint, gate = sys.argv[1:3]

def inverse(x):
    return 1 / x

def gated(gate, value):
    import pathlib, time
    end = time.monotonic() + 120
    while not pathlib.Path(gate).exists():
        if time.monotonic() > end:
            return "the gate never opened"
        time.sleep(0.02)
    return value

def submitted(futures):
    while not all(future.task_id for future in futures):
        time.sleep(0.05)
    return [future.task_id for future in futures]
"""
VALUES = """
with executor(endpoint) as ex:
    report([future.result(timeout=100) for future in [ex.submit(inverse, x) for x in (1, 2, 4)]])
    report("ZeroDivisionError: division by zero" in str(ex.submit(inverse, 0).exception(timeout=60)))
    group = ex.task_group_id
with executor(endpoint, task_group_id=group) as ex:
    ended = list(ex.reload_tasks())
    report(sorted(future.result(timeout=60) for future in ended if future.exception(timeout=60) is None))
"""
OVER_A_RESTART = """
with executor(endpoint) as ex:
    futures = [ex.submit(gated, gate, value) for value in range(6)]
    report(submitted(futures))
    report([future.result(timeout=120) for future in futures])
"""
ABANDONED = """
ex = executor(endpoint)
futures = [ex.submit(gated, gate, value) for value in range(4)]
tasks = submitted(futures)
report([str(ex.task_group_id), tasks])
time.sleep(120)
"""
TAKEN_UP = """
with executor(endpoint, task_group_id=sys.argv[3]) as ex:
    report(sorted(future.result(timeout=100) for future in ex.reload_tasks()))
"""


@pytest.fixture(scope="module", params=STORES)
def store(request):
    return request.param


@pytest.fixture(scope="module")
def service(shared_testbed, store, request):
    url = request.getfixturevalue("postgres").create("stores") if store == "postgres" else None
    return shared_testbed.service(f"service-{store}", database=url)


@pytest.fixture(scope="module")
def endpoint(shared_testbed, service, store):
    return shared_testbed.endpoint(service, f"endpoint-{store}")


@pytest.fixture(scope="module")
def sdk(service):
    return service.sdk("4.19.0")


@pytest.fixture
def gate(shared_testbed):
    return shared_testbed.directory / f"gate-{uuid.uuid4()}"


def test_the_database_is_the_one_that_was_asked_for(service, store):
    assert (service.data / "farcall.db").exists() == (store == "sqlite")


def test_values_and_an_error(sdk, endpoint, gate):
    assert sdk.run(SESSION + VALUES, endpoint.id, gate) == [[1.0, 0.5, 0.25], True, [0.25, 0.5, 1.0]]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_tasks_over_a_restart_of_the_service(sdk, service, endpoint, gate, how):
    script = sdk.start(SESSION + OVER_A_RESTART, endpoint.id, gate)
    script.wait_for_report()
    getattr(service, how)()
    service.start()
    gate.touch()
    assert script.finish()[1] == list(range(6))
    until(endpoint.online, "the endpoint is online again", 60)


def test_results_of_a_client_that_has_ended(sdk, service, endpoint, gate):
    script = sdk.start(SESSION + ABANDONED, endpoint.id, gate)
    group, tasks = script.wait_for_report()
    script.process.kill()
    gate.touch()
    rest = service.rest()
    until(lambda: all(not rest.get(f"/v2/tasks/{task}").get("status", "").startswith(("waiting", "running")) for task in tasks), "the tasks have ended", 60)
    assert sdk.run(SESSION + TAKEN_UP, endpoint.id, gate, group) == [[0, 1, 2, 3]]
