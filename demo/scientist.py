"""What a scientist writes: the stock Globus Compute SDK from PyPI, and nothing that knows of Farcall."""

import sys
import time

from globus_compute_sdk import Executor


def where():
    import platform

    return f"Python {platform.python_version()} on {platform.node()}"


def inverse(x):
    return 1 / x


def square(x):
    return x * x


def timed(what, act):
    began = time.perf_counter()
    answer = act()
    print(f"\n{what}   ({time.perf_counter() - began:.2f} s)")
    return answer


with Executor(endpoint_id=sys.argv[1]) as executor:
    print("  ", timed("A value:", executor.submit(where).result))

    error = timed("An error, with the traceback from the other side:", executor.submit(inverse, 0).exception)
    print("   " + str(error).strip().replace("\n", "\n   "))

    futures = [executor.submit(square, n) for n in range(200)]
    values = timed("200 tasks at once:", lambda: [future.result() for future in futures])
    assert values == [n * n for n in range(200)]
    print(f"   {values[0]}, {values[1]}, {values[2]}, ... {values[-1]}")
