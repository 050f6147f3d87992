"""The service is killed and restarted while the stock SDK works with it: everything continues by itself."""

import uuid

import pytest

from processes import until

# Functions wait for a file that the test makes once the service is back.
GATED = """
import sys
endpoint, gate = sys.argv[1:3]

def gated(gate, value):
    import pathlib, time
    end = time.monotonic() + 120
    while not pathlib.Path(gate).exists():
        if time.monotonic() > end:
            return "the gate never opened"
        time.sleep(0.02)
    return value
"""


@pytest.fixture
def gate(endpoint):
    return endpoint.testbed.directory / f"gate-{uuid.uuid4()}"


def restarted(service, endpoint, gate, script):
    """Restarts the service once the script has reported that it is in the middle; returns what it reports afterwards."""
    script.wait_for_report()
    service.kill()
    service.start()
    gate.touch()
    reports = script.finish()
    until(endpoint.online, "the endpoint is online again", 60)
    return reports[1:]


def test_a_thousand_tasks_in_flight(service, sdk, endpoint, gate):
    script = sdk.start(
        GATED
        + """
def plain(value):
    return value

import time
with executor(endpoint) as ex:
    futures = [ex.submit(gated, gate, n) for n in range(2)]
    futures += [ex.submit(plain, n) for n in range(2, 1000)]
    while not all(future.task_id for future in futures):
        time.sleep(0.05)
    report("submitted")
    report(sum(future.result(timeout=120) for future in futures))
    group = ex.task_group_id
with executor(endpoint, task_group_id=group) as ex:
    report(sum(future.result(timeout=120) for future in ex.reload_tasks()))
""",
        endpoint.id,
        gate,
    )
    assert restarted(service, endpoint, gate, script) == [499_500, 499_500]


def test_the_batch_client(service, sdk, endpoint, gate):
    script = sdk.start(
        GATED
        + """
import time
client = Client()
function = client.register_function(gated)
batch = client.create_batch()
for value in range(5):
    batch.add(function, args=(gate, value))
tasks = client.batch_run(endpoint, batch)["tasks"][function]
report("submitted")
end = time.monotonic() + 120
while True:
    found = client.get_batch_result(tasks)
    if all(not found[task].get("pending") for task in tasks) or time.monotonic() > end:
        break
    time.sleep(0.1)
report([found[task]["result"] for task in tasks])
""",
        endpoint.id,
        gate,
    )
    assert restarted(service, endpoint, gate, script) == [[0, 1, 2, 3, 4]]


def test_a_pending_task_is_reloaded(service, sdk, endpoint, gate):
    """By a second program: the SDK leaves out what it awaits itself."""
    [group] = sdk.run(
        GATED
        + """
import os, time
ex = executor(endpoint)
future = ex.submit(gated, gate, "value")
while future.task_id is None:
    time.sleep(0.01)
report(str(ex.task_group_id))
os._exit(0)
""",
        endpoint.id,
        gate,
    )
    script = sdk.start(
        """
        import sys
        endpoint, group = sys.argv[1:]

        with executor(endpoint, task_group_id=group) as ex:
            [future] = ex.reload_tasks()
            report(future.done())
            report(future.result(timeout=120))
        """,
        endpoint.id,
        group,
    )
    assert restarted(service, endpoint, gate, script) == ["value"]


def test_ten_megabytes_each_way(service, sdk, endpoint, gate):
    """7.5 MB of bytes are 10 MB as the SDK writes them: the most that a result may have."""
    script = sdk.start(
        GATED
        + """
def reverse(gate, data):
    import pathlib, time
    while not pathlib.Path(gate).exists():
        time.sleep(0.02)
    return data[::-1]

import time
data = bytes(range(250)) * 30_000
with executor(endpoint) as ex:
    future = ex.submit(reverse, gate, data)
    while future.task_id is None:
        time.sleep(0.05)
    report("submitted")
    report(future.result(timeout=120) == data[::-1])
    task = future.task_id
report(Client().get_result(task) == data[::-1])
""",
        endpoint.id,
        gate,
    )
    assert restarted(service, endpoint, gate, script) == [True, True]


def test_registered_functions_and_groups_are_there_afterwards(service, sdk, endpoint, gate, release):
    """One's own, one of source, and one of somebody else who shares nothing: it is refused as before."""
    [private] = service.sdk(release, service.add_client("stranger")).run(
        """
        def secret(value):
            return value

        report(Client().register_function(secret))
        """
    )
    script = sdk.start(
        GATED
        + """
import pathlib, time

def greet(name):
    return f"hello {name}"

client = Client()
function = client.register_function(greet, public=True)
shout = function
if hasattr(client, "register_source_code"):
    shout = client.register_source_code("def shout(name):\\n    return f'hello {name}'\\n", "shout")
report("registered")
while not pathlib.Path(gate).exists():
    time.sleep(0.02)
with executor(endpoint) as ex:
    report(ex.submit_to_registered_function(function, args=("you",)).result(timeout=120))
    report(ex.submit_to_registered_function(shout, args=("you",)).result(timeout=120))
    report(str(ex.submit(lambda: 1 / 0).exception(timeout=120)).count("ZeroDivisionError") > 0)
with executor(endpoint) as ex:
    error = ex.submit_to_registered_function(sys.argv[3], args=([],)).exception(timeout=120)
    report("FUNCTION_NOT_FOUND" in str(error))
""",
        endpoint.id,
        gate,
        private,
    )
    assert restarted(service, endpoint, gate, script) == ["hello you", "hello you", True, True]


def test_every_strategy_in_flight(service, sdk, endpoint, gate):
    """Each strategy's task is accepted before and runs after the restart, errors too."""
    script = sdk.start(
        GATED
        + """
import time
from globus_compute_sdk import serialize
from globus_compute_sdk.serialize import ComputeSerializer

def failing(gate, value):
    import pathlib, time
    while not pathlib.Path(gate).exists():
        time.sleep(0.02)
    return value / 0

strategies = [
    *(dict(strategy_code=name) for name in ("DillCode", "DillCodeSource", "CombinedCode", "PureSourceTextInspect")),
    *(dict(strategy_data=name) for name in ("DillDataBase64", "JSONData")),
]
executors = []
futures = []
for chosen in strategies:
    chosen = {kind: getattr(serialize, name)() for kind, name in chosen.items()}
    ex = executor(endpoint, serializer=ComputeSerializer(**chosen))
    executors.append(ex)
    futures.append((ex.submit(gated, gate, 7), ex.submit(failing, gate, 7)))
while not all(future.task_id for pair in futures for future in pair):
    time.sleep(0.05)
report("submitted")
report([good.result(timeout=120) for good, _ in futures])
report(all("ZeroDivisionError" in str(bad.exception(timeout=120)) for _, bad in futures))
for ex in executors:
    ex.shutdown()
""",
        endpoint.id,
        gate,
    )
    assert restarted(service, endpoint, gate, script) == [[7] * 6, True]
