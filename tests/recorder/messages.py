"""Makes the messages that every subject is given: run by the interpreter of one SDK release, which packs the tasks.

    $(python3.11 ../environments.py --path sdk-3.8.0) messages.py > messages.json

Each has a name, headers and a body; `{task}` stands for the id of its task. The functions of this file are in
`__main__`, so dill writes them by value.
"""

import sys

if "NAMED" not in globals():
    # Once more, under a name that says nothing of the machine: it goes into every function.
    NAMED = True
    with open(__file__) as source:
        exec(compile(source.read(), "messages.py", "exec"))
    sys.exit()

import base64
import json

from globus_compute_sdk import serialize
from globus_compute_sdk.sdk.shell_function import ShellFunction
from globus_compute_sdk.serialize import concretes
from globus_compute_sdk.serialize.base import SerializationStrategy

FUNCTION = "00000000-0000-4000-8000-0000000000f1"
OTHER_FUNCTION = "00000000-0000-4000-8000-0000000000f2"
CODE, DATA = concretes.DillCode(), concretes.DillDataBase64()


class Broken(Exception):
    pass


def same(value):
    return value


def nothing():
    pass


def fails(text):
    raise ValueError(text)


def fails_below(number):
    def deeper():
        return 1 / number

    return deeper()


def fails_from(text):
    try:
        raise KeyError("inner")
    except KeyError as inner:
        raise Broken(text) from inner


def keywords(a, *rest, b=2, **more):
    return [a, list(rest), b, more]


def unpicklable():
    import threading

    return threading.Lock()


def generator():
    return (n for n in range(3))


def large(size):
    return "x" * size


def prints():
    import sys

    print("to standard output")
    print("to standard error", file=sys.stderr)
    return "printed"


def whose_task():
    import os

    return os.environ["GC_TASK_UUID"]


def strategies(for_code):
    found = [s for s in SerializationStrategy._CACHE.values() if s.for_code == for_code and s.identifier != "02\n"]
    return sorted(found, key=lambda strategy: strategy.identifier)


def packed(function, *args, code=CODE, data=DATA, **kwargs):
    return serialize.ComputeSerializer.pack_buffers([code.serialize(function), data.serialize(args), data.serialize(kwargs)])


def task(buffer, **more):
    data = {"task_id": "{task}", "container_id": None, "container": None, "task_buffer": buffer} | more
    return b"\x01" + json.dumps({"message_type": "task", "data": data}, separators=(",", ":")).encode()


messages = []


def message(name, body, headers=None, **changed):
    usual = {"task_uuid": "{task}", "function_uuid": FUNCTION, "resource_specification": "null"}
    headers = usual | changed if headers is None else headers
    headers = {key: value for key, value in headers.items() if value is not ...}
    messages.append({"name": name, "headers": headers, "body": base64.b64encode(body).decode()})


def call(name, function, *args, code=CODE, data=DATA, headers=None, **kwargs):
    message(name, task(packed(function, *args, code=code, data=data, **kwargs)), **(headers or {}))


for kind, value in {
    "none": None, "a number": 42, "a text": "plain", "a text beyond ASCII": "\u00e9\U0001f600\u2028", "bytes": b"\0\xff",
    "a nested value": {"k": [1, 2.5, True, None, {"deep": ()}]}, "an exception": ValueError("returned"), "100 kB": "y" * 100_000,
}.items():
    call(f"ok: {kind}", same, value)
call("ok: nothing", nothing)
call("ok: arguments of every kind", keywords, 1, 2, 3, b=4, c=5)
call("ok: it prints", prints)
call("ok: the environment of the task", whose_task)
call("exception", fails, "as it should")
call("exception: beyond ASCII", fails, "\u00e9\U0001f600")
call("exception: in a function within", fails_below, 0)
call("exception: of its own class, with a cause", fails_from, "outer")
call("exception: arguments that do not fit", nothing, 1, 2)
for strategy in strategies(True):
    call(f"code by {type(strategy).__name__}", same, 7, code=strategy)
    call(f"code by {type(strategy).__name__}: exception", fails, "as it should", code=strategy)
for strategy in strategies(False):
    call(f"data by {type(strategy).__name__}", keywords, 1, b=[2.5, None, "t"], data=strategy)
for name, wanted in {
    "JSON": ["globus_compute_sdk.serialize.JSONData"],
    "dill, after what can't": ["globus_compute_sdk.serialize.JSONData", "globus_compute_sdk.serialize.DillDataBase64"],
    "nobody knows": ["globus_compute_sdk.serialize.Nothing"],
    "an empty list": [],
}.items():
    value = {1, 2} if "after" in name else {"answer": [4, 2]}
    call(f"result by {name}", same, value, headers={"result_serializers": wanted})
call("a ShellFunction", ShellFunction("echo {word}; echo oops >&2"), word="hi")
call("a ShellFunction that fails", ShellFunction("echo {word}; exit 3"), word="hi")
call("an unpicklable result", unpicklable)
call("an unpicklable result: a generator", generator)
call("a result of 9 MB", large, 7_000_000)
call("a result too big", large, 11_000_000)
message("malformed: a function that can't be read", task(serialize.ComputeSerializer.pack_buffers(["01\nnonsense", "00\nx", "00\nx"])))
message("malformed: two buffers", task(serialize.ComputeSerializer.pack_buffers(["01\nx", "00\nx"])))
message("malformed: lengths that do not fit", task("99\nx"))
message("malformed: an unknown strategy", task(serialize.ComputeSerializer.pack_buffers(["zz\nx", "zz\nx", "zz\nx"])))
message("malformed: no JSON", b"\x01nonsense")
message("malformed: nothing", b"")
message("malformed: another version", b"\x02{}")
message("malformed: no task within", b'\x01{"message_type":"task","data":{}}')
message("malformed: no UTF-8", b'\x01{"message_type":"task","data":"\xff"}')
message("a member nobody knows", task(packed(same, 1), unknown=1))
message("an unknown message type", b'\x01{"message_type":"surprise","data":{}}')
for kind, data in {"task_cancel": {"task_id": "{task}"}, "ep_status_report": {"endpoint_id": "{task}", "global_state": {}, "task_statuses": {}}}.items():
    message(f"a {kind} as a task", b"\x01" + json.dumps({"message_type": kind, "data": data}, separators=(",", ":")).encode())
good = task(packed(same, 1))
message("a function that is not allowed", good, function_uuid=OTHER_FUNCTION)
message("a resource specification", good, resource_specification='{"num_nodes":2}')
message("an empty resource specification", good, resource_specification="{}")
message("a resource specification that is no JSON", good, resource_specification="{")
message("a resource specification that is no object", good, resource_specification="[1]")
message("no resource specification", good, resource_specification=...)
message("no function", good, function_uuid=...)
message("a function that is no id", good, function_uuid="nonsense")
message("serializers that are no list", good, result_serializers="nonsense")
# These may end a subject's session with the broker, so they come last.
message("no headers", good, headers={})
message("no task", good, task_uuid=...)
message("a task that is no id", good, task_uuid="nonsense")
message("a task of the wrong type", good, task_uuid=5)
message("a function of the wrong type", good, function_uuid=7)
message("a resource specification of the wrong type", good, resource_specification=True)
json.dump(messages, sys.stdout)
