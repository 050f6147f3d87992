"""The first task: a function runs on an endpoint, and its value comes back."""

import os

from globus_compute_sdk import Executor


def greet(name):
    import platform

    return f"Hello {name}, from Python {platform.python_version()} on {platform.node()}"


with Executor(endpoint_id=os.environ["FARCALL_ENDPOINT_ID"]) as executor:
    print(executor.submit(greet, "world").result())
