"""Makes the golden payloads of one SDK release: run with that release's interpreter, from this directory.

    $(python3.11 ../environments.py --path sdk-3.8.0) make_payloads.py payloads/sdk-3.8.0.json

Each entry is a packed task buffer as that SDK submits it, and what the function returns for it, as JSON or as a
`repr` where JSON has no word. The functions of this file are in `__main__`, so dill writes them by value: the byte
code in the payloads is that of the interpreter named at the top of the file.
"""

import sys

if "NAMED" not in globals():
    # Once more, under a name that says nothing of the machine: it goes into every function.
    NAMED = True
    with open("make_payloads.py") as source:
        exec(compile(source.read(), "make_payloads.py", "exec"))
    sys.exit()

import collections
import datetime
import decimal
import functools
import json
import math
import pickle
import platform

import dill
import globus_compute_sdk
from globus_compute_sdk import serialize
from globus_compute_sdk.sdk.shell_function import ShellFunction
from globus_compute_sdk.serialize import concretes
from globus_compute_sdk.serialize.base import SerializationStrategy

Point = collections.namedtuple("Point", "x y")


class Money:
    currency = "EUR"

    def __init__(self, amount):
        self.amount = amount

    def doubled(self):
        return type(self)(self.amount * 2)


def add(x, y=1):
    return x + y


def options(a, /, b=2, *rest, c=3, **more):
    return [a, b, list(rest), c, more]


def adder(n):
    def add_n(x):
        return x + n

    return add_n


def countdown():
    def inner(n):
        return [n] + inner(n - 1) if n else []

    return inner


def traced(function):
    @functools.wraps(function)
    def wrapper(*args):
        return ["traced", function(*args)]

    return wrapper


@traced
def decorated(x):
    return x * 2


def squares(n):
    return [k * k for k in range(n)]


def text():
    return "é😀: a colon\nand a line"


def kinds(*values):
    return [repr(value) for value in values]


def amount(money):
    return [type(money).__name__, money.doubled().amount, money.currency]


def coordinates(point):
    return [point.x, point.y]


def fails():
    raise ValueError("as it should")


def code_strategies():
    found = [s for s in SerializationStrategy._CACHE.values() if s.for_code and s.identifier != "02\n"]
    return sorted(found, key=lambda strategy: strategy.identifier)


def data_strategies():
    found = [s for s in SerializationStrategy._CACHE.values() if not s.for_code]
    return sorted(found, key=lambda strategy: strategy.identifier)


def main(path):
    dill_code, dill_data = concretes.DillCode(), concretes.DillDataBase64()
    pack = serialize.ComputeSerializer.pack_buffers
    entries = []

    def entry(name, buffers, returns=None, error=None):
        wanted = {"error": error} if error else {"returns": returns}
        entries.append({"name": name, "buffer": pack(buffers), **wanted})

    def call(name, function, *args, code=dill_code, data=dill_data, returns=None, error=None, **kwargs):
        buffers = [code.serialize(function), data.serialize(args), data.serialize(kwargs)]
        entry(name, buffers, returns, error)

    for strategy in code_strategies():
        name = type(strategy).__name__
        call(f"{name}/add", add, 40, y=2, code=strategy, returns=42)
        call(f"{name}/text", text, code=strategy, returns=text())
        call(f"{name}/fails", fails, code=strategy, error="ValueError: as it should\n")
    for strategy in data_strategies():
        name = type(strategy).__name__
        call(f"{name}/options", options, 1, 5, 6, 7, c=8, d={"k": [1, 2.5, True, None]}, data=strategy,
             returns=[1, 5, [6, 7], 8, {"d": {"k": [1, 2.5, True, None]}}])
    pickled = concretes.PickleCode.identifier + __import__("codecs").encode(pickle.dumps(math.sqrt), "base64").decode()
    entry("PickleCode/sqrt", [pickled, dill_data.serialize((16,)), dill_data.serialize({})], 4.0)

    call("DillCode/defaults", options, 1, returns=[1, 2, [], 3, {}])
    call("DillCode/lambda", lambda x: x + 1, 1, returns=2)
    call("DillCode/closure", adder(5), 1, returns=6)
    call("DillCode/recursive closure", countdown(), 3, returns=[3, 2, 1])
    call("DillCode/decorated", decorated, 3, returns=["traced", 6])
    call("DillCode/comprehension", squares, 4, returns=[0, 1, 4, 9])
    call("DillCode/builtin", max, 3, 9, returns=9)
    call("DillCode/by reference", json.dumps, [1], returns="[1]")
    call("DillCode/partial", functools.partial(math.pow, 2), 3, returns=8.0)
    call("DillCode/module absent", _of_absent_module(), error="ModuleNotFoundError: No module named 'absent'\n")
    values = (
        {1}, frozenset({2}), b"\xff", bytearray(b"x"), 1 + 2j, datetime.date(2026, 11, 21),
        decimal.Decimal("1.5"), range(3), slice(1, 2), Ellipsis, 10**30, float("inf"), "\ud800", int, len,
    )
    call("DillDataBase64/kinds", kinds, *values, returns=[repr(value) for value in values])
    call("DillDataBase64/class of __main__", amount, Money(21), returns=["Money", 42, "EUR"])
    call("DillDataBase64/named tuple of __main__", coordinates, Point(1, 2), returns=[1, 2])
    shell = ShellFunction("echo {word}; echo oops >&2; exit 3")
    call("DillCode/ShellFunction", shell, word="hi", returns={"shell": ["hi\n", 3]})

    document = {
        "sdk": globus_compute_sdk.__version__,
        "dill": dill.__version__,
        "python": platform.python_version(),
        "entries": entries,
    }
    with open(path, "w") as file:
        json.dump(document, file, indent=1)
        file.write("\n")


def _of_absent_module():
    import types

    module = types.ModuleType("absent")
    exec("def f():\n    pass\n", module.__dict__)
    sys.modules["absent"] = module
    return module.f


if __name__ == "__main__":
    main(sys.argv[1])
