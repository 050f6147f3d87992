"""SIGKILL of the service at random moments under load. Every future ends in one outcome, none is lost, nothing runs
twice."""

import random
import time
from collections import Counter

import pytest

from processes import until

# Each task writes a line when it begins. Submits are many and small, so that a kill meets them in every stage.
LOAD = """
import os, sys, time
from globus_sdk import GlobusAPIError
from globus_compute_sdk.errors import TaskExecutionFailed
from globus_compute_sdk.sdk.executor import _RESULT_WATCHERS
endpoint, marks = sys.argv[1:3]

def count(marks, n):
    import os
    with open(f"{marks}/begun", "a") as begun:
        begun.write(f"{n}\\n")
    return n

import pathlib
stop = pathlib.Path(marks, "stop")
outcomes = []
ex = executor(endpoint, batch_size=7)
futures = []
while not stop.exists():
    # The stock SDK sends eight batches a second at most.
    futures += [ex.submit(count, marks, len(futures) + n) for n in range(10)]
    time.sleep(0.2)
report(len(futures))

def awaited():
    "What the SDK still waits for. A batch that is submitted in the moment its watcher gives up, it forgets."
    return {task for watcher in list(_RESULT_WATCHERS.values()) if watcher.is_alive() for task in watcher.get_open_futures()}

def pending():
    return any(not future.done() and (future.task_id is None or future.task_id in awaited()) for future in futures)

# Twice in a row: what has just been submitted is awaited a moment later.
end, settled = time.monotonic() + 140, 0
while time.monotonic() < end and settled < 2:
    settled = 0 if pending() else settled + 1
    time.sleep(0.5)
for n, future in enumerate(futures):
    if not future.done():
        outcomes.append("still awaited" if future.task_id in awaited() else "gave up")
        continue
    error = future.exception()
    if error is None:
        outcomes.append(None if future.result() == n else "another value")
    else:
        outcomes.append(str(error) if isinstance(error, (TaskExecutionFailed, GlobusAPIError)) else "gave up")
report(outcomes)
# Threads of the SDK that wait for what it gave up would keep this process for ever.
os._exit(0)
"""


# The stock SDK's own ends, with which it gives up its futures: when a connection is lost between a result and its
# acknowledgement, it tries that acknowledgement on every new connection before the channel is open, and fails five
# times; when three connections are lost within seconds, as on a busy machine; and when it forgets a batch.
GAVE_UP = "gave up"


def kills(testbed, seed, rounds, complete, most):
    """Kills five times in each round, which has a program of its own. There are so many rounds, and more until in so many
    of them no future was given up; more rounds than `most` are a failure."""
    chance = random.Random(seed)
    service = testbed.service()
    endpoint = testbed.endpoint(service, workers=2)
    sdk = service.sdk("4.19.0")
    ran, whole = 0, []
    while len(whole) < rounds or sum(whole) < complete:
        assert len(whole) < most, f"the SDK gave up futures in {whole.count(False)} of {len(whole)} rounds"
        begun, kept = one_round(testbed, service, endpoint, sdk, chance)
        ran += begun
        whole.append(kept)
    counted = service.rest().get(f"/v2/endpoints/{endpoint.id}/status")["farcall"]["tasks"]
    assert (counted["failed"], counted["succeeded"]) == (0, ran), counted


def one_round(testbed, service, endpoint, sdk, chance):
    """Returns how many tasks began, and whether each future ended in its own result."""
    marks = testbed.directory / f"marks-{chance.getrandbits(64):x}"
    marks.mkdir()
    script = sdk.start(LOAD, endpoint.id, marks)
    until(lambda: (marks / "begun").exists(), "the first task runs", 60)
    for _ in range(5):
        time.sleep(chance.uniform(0.05, 1.5))
        service.kill()
        time.sleep(chance.uniform(0, 0.3))
        service.start()
    time.sleep(1)
    (marks / "stop").touch()
    [submitted, outcomes] = script.finish(timeout=170)
    assert submitted == len(outcomes) > 20

    def ended():
        tasks = service.rest().get(f"/v2/endpoints/{endpoint.id}/status")["farcall"]["tasks"]
        return tasks["waiting"] == tasks["taken"] == 0

    until(ended, "every task that was accepted has ended", 60)
    begun = Counter(map(int, (marks / "begun").read_text().split()))
    twice = {n: count for n, count in begun.items() if count > 1}
    assert not twice, twice
    errors = {n: outcome for n, outcome in enumerate(outcomes) if outcome is not None}
    failed = {n: outcome for n, outcome in errors.items() if outcome != GAVE_UP}
    assert not failed, failed
    succeeded = {n for n, outcome in enumerate(outcomes) if outcome is None}
    assert succeeded <= set(begun), succeeded - set(begun)
    if not errors:
        assert sorted(begun) == list(range(submitted))
    return len(begun), not errors


def test_five_kills(testbed):
    kills(testbed, seed=6, rounds=1, complete=1, most=4)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_fifty_kills(testbed):
    kills(testbed, seed=50, rounds=10, complete=4, most=20)
