"""The workload of a chaos run: one user's tasks, submitted while programs are killed, and how each future ended.

    client.py ENDPOINT AMQP_PORT SEED TASKS SECONDS MARKS MENDED

Every future gets an entry. When the SDK gives up a future because of its connection, the script collects it again from the
task group, as a user would by starting the script again.
"""

import os
import random
import sys
import time
from concurrent.futures import Future, wait

from globus_compute_sdk import Client
from globus_compute_sdk.errors import TaskExecutionFailed, TaskPending
from globus_compute_sdk.sdk.executor import _RESULT_WATCHERS
from prelude import executor, report

ENDPOINT, AMQP_PORT, SEED, TASKS, SECONDS, MARKS, MENDED = sys.argv[1:]
TASKS, SECONDS = int(TASKS), float(SECONDS)
# How long the group may take to settle once everything works again.
SETTLING = 200
BURST = 50


def work(marks, key, kind, size):
    import os
    import time

    # One write of one short line: it is whole or absent, whoever is killed.
    with open(os.path.join(marks, str(os.getpid())), "a") as begun:
        begun.write(f"{os.environ['GC_TASK_UUID']} {key}\n")
    if kind == "fail":
        raise ValueError(f"task {key} fails on purpose")
    if kind == "sleep":
        time.sleep(size)
        size = 8
    return f"{key}:" + "x" * size


def plan(key):
    dice = random.Random(f"{SEED}/{key}")
    kind = dice.choices(["small", "middle", "large", "fail", "sleep"], [80, 10, 0.5, 5, 4.5])[0]
    sizes = {"small": dice.randrange(100), "middle": 10_000, "large": 300_000, "fail": 0, "sleep": dice.uniform(0.01, 0.2)}
    return kind, sizes[kind]


def expected(key):
    kind, size = plan(key)
    return f"{key}:" + "x" * (8 if kind == "sleep" else size)


def judged(key, future):
    """What became of it: ["value"], ["failed"] as it should, ["error", text], or ["gave up", text] by the SDK.
    (["undelivered"]: the SDK still waits.)"""
    if future.cancelled():
        return ["gave up", "cancelled"]
    error = future.exception()
    if error is None:
        return ["value"] if future.result() == expected(key) else ["error", f"another value than {key}'s"]
    if not isinstance(error, TaskExecutionFailed):
        return ["gave up", f"{type(error).__name__}: {error}"]
    if plan(key)[0] == "fail" and f"task {key} fails on purpose" in str(error):
        return ["failed"]
    return ["error", str(error)]


group = None
futures = {}
told = [0] * TASKS


def count(key):
    def done(_future):
        told[key] += 1

    return done


def submit(ex, key):
    kind, size = plan(key)
    futures[key] = ex.submit(work, MARKS, key, kind, size)
    futures[key].add_done_callback(count(key))


def opened():
    return executor(ENDPOINT, task_group_id=group, amqp_port=int(AMQP_PORT))


ex = opened()
# The service makes the group with the first task, before anything breaks.
submit(ex, 0)
while not futures[0].task_id:
    time.sleep(0.05)
group = ex.task_group_id
report("begun")
for first in range(1, TASKS, BURST):
    for key in range(first, min(first + BURST, TASKS)):
        try:
            submit(ex, key)
        except RuntimeError:
            # An executor that could not submit takes no more: a user makes another.
            ex = opened()
            submit(ex, key)
    time.sleep(SECONDS * BURST / TASKS)
report("submitted")

# The test makes this file once everything works again.
while not os.path.exists(MENDED):
    time.sleep(0.05)
deadline = time.monotonic() + SETTLING


def watched():
    """The tasks whose results the SDK still waits for. One that it neither waits for nor ended, it has forgotten: a batch
    that was submitted in the moment its watcher gave up."""
    return {task for watcher in list(_RESULT_WATCHERS.values()) if watcher.is_alive() for task in watcher.get_open_futures()}


while time.monotonic() < deadline and any(not future.done() and future.task_id in watched() for future in futures.values()):
    time.sleep(0.2)
still_watched = watched()

ledger = {}
for key, future in futures.items():
    if future.done():
        ledger[key] = judged(key, future)
    elif future.task_id in still_watched:
        ledger[key] = ["undelivered"]
    else:
        ledger[key] = ["gave up", "forgotten"]
keys = {str(future.task_id): key for key, future in futures.items() if future.task_id}


def open_keys():
    """What the service accepted and the SDK gave up."""
    return {key for key in keys.values() if ledger[key][0] == "gave up"}


attempts = 0
while open_keys() and attempts < 3:
    attempts += 1
    again = opened()
    reloaded = [future for future in again.reload_tasks() if keys.get(str(future.task_id)) in open_keys()]
    for future in wait(reloaded, timeout=20).done:
        key = keys[str(future.task_id)]
        ledger[key] = judged(key, future)
    again.shutdown(wait=False, cancel_futures=True)


def ask(task):
    """Settles a task by what REST says of it, if it has ended."""
    ended = Future()
    try:
        ended.set_result(client.get_result(task))
    except TaskExecutionFailed as error:
        ended.set_exception(error)
    except TaskPending:
        return
    ledger[keys[task]] = judged(keys[task], ended)


# A client whose watchers give up again and again can ask without them.
client = Client()
while open_keys() and time.monotonic() < deadline + 20:
    left = [task for task, key in keys.items() if key in open_keys()][:500]
    for task, status in client.get_batch_result(left).items():
        if not status["pending"]:
            ended = Future()
            ended.set_result(status["result"])
            ledger[keys[task]] = judged(keys[task], ended)
    # Of failed tasks it says nothing: they are asked for one by one.
    for task in left[:50]:
        if keys[task] in open_keys():
            ask(task)
    time.sleep(0.2)

report(
    {
        "entries": [
            {"key": key, "task": futures[key].task_id and str(futures[key].task_id), "told": told[key], "how": ledger[key]}
            for key in range(TASKS)
        ],
        "reloads": attempts,
    }
)
# Threads of the SDK that wait for what it gave up would keep this process for ever.
os._exit(0)
