"""A function that one person registers and everybody may run, each on an endpoint of their own.

    python shared_function.py            registers it, and prints its id
    python shared_function.py FUNCTION   runs it
"""

import os
import sys

from globus_compute_sdk import Client, Executor


def fahrenheit(celsius):
    return celsius * 9 / 5 + 32


if len(sys.argv) > 1:
    with Executor(endpoint_id=os.environ["FARCALL_ENDPOINT_ID"]) as executor:
        print(executor.submit_to_registered_function(sys.argv[1], args=(100,)).result())
else:
    print(Client().register_function(fahrenheit, public=True))
