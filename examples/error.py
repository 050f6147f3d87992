"""An error: the future raises it, with the traceback from the other side."""

import os

from globus_compute_sdk import Executor


def mean(numbers):
    return sum(numbers) / len(numbers)


with Executor(endpoint_id=os.environ["FARCALL_ENDPOINT_ID"]) as executor:
    future = executor.submit(mean, [])
    try:
        print(future.result())
    except Exception as error:
        print(type(error).__name__)
        print(error)
