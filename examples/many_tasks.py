"""Many tasks at once, with a progress bar: results are taken as they come."""

import os
from concurrent.futures import as_completed

from globus_compute_sdk import Executor

TASKS = 200


def estimate(seed):
    """One throw of darts at a quarter circle."""
    import random

    dice = random.Random(seed)
    throws = 2000
    return sum(dice.random() ** 2 + dice.random() ** 2 < 1 for _ in range(throws)) / throws * 4


with Executor(endpoint_id=os.environ["FARCALL_ENDPOINT_ID"]) as executor:
    futures = [executor.submit(estimate, seed) for seed in range(TASKS)]
    done = []
    for future in as_completed(futures):
        done.append(future.result())
        filled = 40 * len(done) // TASKS
        print(f"\r[{'#' * filled}{' ' * (40 - filled)}] {len(done)}/{TASKS}", end="", flush=True)
    print(f"\npi is about {sum(done) / TASKS:.3f}")
