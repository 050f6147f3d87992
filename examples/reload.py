"""Submit today, collect tomorrow: the results of a task group are there for any later process.

    python reload.py          submits, prints the id of the task group, and leaves without waiting
    python reload.py GROUP    collects
"""

import os
import sys
import time

from globus_compute_sdk import Executor

ENDPOINT = os.environ["FARCALL_ENDPOINT_ID"]


def square(x):
    import time

    time.sleep(1)
    return x * x


def submit():
    executor = Executor(endpoint_id=ENDPOINT)
    futures = [executor.submit(square, n) for n in range(4)]
    # A task that has an id is the service's: from then on nobody needs to wait for it.
    while not all(future.task_id for future in futures):
        time.sleep(0.1)
    print(executor.task_group_id)
    executor.shutdown(wait=False, cancel_futures=True)


def collect(group):
    with Executor(endpoint_id=ENDPOINT, task_group_id=group) as executor:
        print(sorted(future.result() for future in executor.reload_tasks()))


if len(sys.argv) > 1:
    collect(sys.argv[1])
else:
    submit()
