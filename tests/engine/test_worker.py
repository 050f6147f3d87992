"""The engine's Python worker alone: every strategy both ways, and what it tells users."""

import json
import os
import subprocess
from pathlib import Path

import environments
import pytest
import versions
from worker import JSON, Worker, bare, pack, source

HERE = Path(__file__).resolve().parent
GOLDEN = {path.stem: json.loads(path.read_text()) for path in sorted((HERE / "payloads").glob("*.json"))}
ENTRIES = [
    pytest.param(entry, id=f"{release}-{entry['name']}")
    for release, document in GOLDEN.items()
    for entry in document["entries"]
]
# With dill and the SDK beside it, and without anything.
INTERPRETERS = {
    "bare": bare,
    "dill": lambda: environments.python("sdk-4.19.0"),
    "older dill": lambda: environments.python("sdk-3.8.0"),
}


@pytest.fixture(scope="module", params=INTERPRETERS)
def worker(request, tmp_path_factory):
    worker = Worker(INTERPRETERS[request.param](), tmp_path_factory.mktemp("worker"))
    yield worker
    worker.close()


@pytest.fixture
def start(tmp_path):
    """Starts workers of the test's own, on an interpreter that has nothing."""
    workers = []

    def start(interpreter=None, **options):
        worker = Worker(interpreter or bare(), tmp_path, **options)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.close()


def test_bare_is_bare():
    script = "import importlib.util as u; print(u.find_spec('dill'), u.find_spec('globus_compute_sdk'))"
    assert subprocess.run([bare(), "-c", script], capture_output=True, text=True).stdout == "None None\n"


@pytest.mark.parametrize("entry", ENTRIES)
def test_golden_payload(worker, entry):
    wanted = entry.get("returns")
    if isinstance(wanted, dict) and "shell" in wanted:
        result = worker.run(entry["buffer"])
        assert result["error_details"] is None, result["data"]
        for release in GOLDEN:
            shell = decode(release, result["data"])
            assert shell == {"type": "ShellResult", "stdout": wanted["shell"][0], "returncode": wanted["shell"][1]}
        return
    result = worker.run(entry["buffer"], result_serializers=[JSON])
    if "error" in entry:
        assert result["error_details"]["code"] == "RemoteExecutionError"
        assert result["data"].startswith("Traceback (most recent call last):\n")
        assert result["data"].endswith(entry["error"])
    else:
        assert result["error_details"] is None, result["data"]
        assert json.loads(result["data"][3:]) == wanted


def decode(release, data):
    """What the SDK of a release makes of a result."""
    script = """if True:
        import json, sys
        from globus_compute_sdk.serialize import ComputeSerializer
        value = ComputeSerializer().deserialize(sys.stdin.read())
        if type(value).__name__ == "ShellResult":
            value = {"type": "ShellResult", "stdout": value.stdout, "returncode": value.returncode}
        elif callable(value):
            value = ["called", value(20)]
        json.dump(value, sys.stdout, default=repr)
    """
    done = subprocess.run(
        [environments.python(release), "-c", script], input=data, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


STRATEGIES = {"DillDataBase64": "00", "JSONData": "11", "AllDataStrategies": "13"}


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("DillDataBase64", "sdk-3.8.0"),
        ("JSONData", "sdk-3.8.0"),  # the third is younger than this release
        ("DillDataBase64", "sdk-4.19.0"),
        ("JSONData", "sdk-4.19.0"),
        ("AllDataStrategies", "sdk-4.19.0"),
    ],
)
def test_a_result_by_each_strategy_is_read_by_the_sdk(worker, name, release):
    text = "def f():\n    return {'list': [1, 2.5, None, 'é\\n']}\n"
    result = worker.run(source(text), result_serializers=[f"globus_compute_sdk.serialize.{name}"])
    assert result["error_details"] is None, result["data"]
    assert result["data"].startswith(STRATEGIES[name] + "\n")
    assert decode(release, result["data"]) == {"list": [1, 2.5, None, "é\n"]}


def test_a_default_result_is_what_dill_writes(worker):
    for value, written in [("42", "00\ngARLKi4=\n"), ("None", "00\ngAROLg==\n"), ("{1}", "00\ngASVBwAAAAAAAACPlChLAZAu\n"),
                           ("'hé\\n'", "00\ngASVCAAAAAAAAACMBGjDqQqULg==\n"), ("(1, 'a')", "00\ngASVCQAAAAAAAABLAYwBYZSGlC4=\n")]:
        assert worker.run(source(f"def f():\n    return {value}\n"))["data"] == written


def test_a_function_as_a_result_is_sent_as_code(worker):
    result = worker.run(source("def f():\n    import math\n    return math.sqrt\n"))
    assert result["data"].startswith("01\n")
    assert decode("sdk-4.19.0", result["data"]) == ["called", pytest.approx(20**0.5)]


def test_a_closure_as_a_result_needs_dill(start):
    text = "def f():\n    n = 22\n    return lambda x: x + n\n"
    result = start(environments.python("sdk-4.19.0")).run(source(text))
    assert decode("sdk-4.19.0", result["data"]) == ["called", 42]
    refused = start().error(text)
    assert "needs the package 'dill'" in refused and f"{bare()} -m pip install dill" in refused
    assert "Serialization failed: All strategies failed. The function returned a value of type 'function'" in refused


def test_details_and_transitions(worker):
    result = worker.run(source("def f(): pass"))
    details = result["details"]
    assert set(details) == {"os", "dill_version", "python_version", "globus_compute_sdk_version", "endpoint_id"}
    assert details["endpoint_id"] == "aaaaaaaa-0000-0000-0000-000000000000"
    script = "import platform; print(platform.platform(), platform.python_version())"
    asked = subprocess.run([worker.process.args[0], "-c", script], capture_output=True, text=True).stdout.split()
    assert [details["os"], details["python_version"]] == asked
    start, end = result["task_statuses"]
    assert (start["state"], start["actor"]) == ("execution-start", "worker")
    assert (end["state"], end["actor"]) == ("execution-end", "worker")
    assert 0 < start["timestamp"] <= end["timestamp"]


def test_versions_are_those_that_are_installed(start):
    details = start(environments.python("sdk-4.19.0")).run(source("def f(): pass"))["details"]
    assert details["globus_compute_sdk_version"] == "4.19.0"
    assert details["dill_version"] == GOLDEN["sdk-4.19.0"]["dill"]


def test_a_traceback_shows_the_frames_of_the_user(start):
    worker = start()
    text = "def f():\n    def g():\n        raise KeyError('x') from ValueError('y')\n    g()\n"
    assert worker.error(text) == (
        "ValueError: y\n\nThe above exception was the direct cause of the following exception:\n\n"
        "Traceback (most recent call last):\n"
        '  File "<string>", line 4, in f\n  File "<string>", line 3, in g\nKeyError: \'x\'\n'
    )
    assert worker.error("def f(): return g()").endswith("NameError: name 'g' is not defined\n")
    assert worker.error("def f():\n    import nowhere").endswith("ModuleNotFoundError: No module named 'nowhere'\n")
    assert "maximum recursion depth" in worker.error("def f(): return f()")
    assert "positional argument" in worker.error("def f(): pass", 1)
    unprintable = "def f():\n    class E(Exception):\n        def __str__(self): raise OSError()\n    raise E()"
    assert "E" in worker.error(unprintable)
    assert worker.error("def f(): raise ValueError('\\ud800')").endswith("ValueError: \\ud800\n")


def test_an_allow_list_is_enforced_on_the_outer_header(start):
    worker = start(allowed=["AllCodeStrategies", "JSONData"])
    text = "def f(): return 1"
    assert worker.error(text).endswith(
        "DeserializationError: Deserialization failed: \n"
        " Code serializer PureSourceTextInspect disabled by current configuration.\n"
        " The current configuration requires the *function* to be serialized with one of the allowed Code classes:\n"
        "\n     Allowed serializers: AllCodeStrategies, JSONData\n"
    )
    inside = "12\n" + pack("st\nf:" + text)
    assert worker.run(pack(inside, "11\n[]", "11\n{}"))["data"] == "00\ngARLAS4=\n"
    refused = worker.run(pack(inside, "00\ngAQpLg==\n", "11\n{}"))["data"]
    assert "Data serializer DillDataBase64 disabled" in refused and "*arguments*" in refused


def test_bad_buffers_are_told_in_the_words_of_the_original(worker):
    ok = "st\nf:def f(): pass"
    for buffer, words in [
        (pack("zz\nabc"), "Deserialization failed: Invalid header: zz\n in data payload\n"),
        (pack(ok, "11\n[]"), "AssertionError: Unpack expects 3 buffers, got 2\n"),
        ("x\n" + ok, "ValueError: invalid literal for int() with base 10: 'x'\n"),
        (pack("12\n5\nabcde"), "\n* Malformed data (no newline separator): abcde\n"),
        (pack("12\n6\nzz\nabc"), "\n* Invalid strategy identifier: zz\n"),
        (pack("10\n04\n:xxxx:01\n:yyyy"), "Deserialization failed: Deserialization failed after 2 tries\n"),
        (pack("12\n9\nabc"), "ValueError: Truncated buffer: expected 9 characters, but only 3 characters remain\n"),
    ]:
        result = worker.run(buffer)
        assert result["data"].endswith(words), result["data"]
    # A length beyond the end is let pass, as it always was.
    assert worker.run(pack(ok, "11\n[]") + "99\n11\n{}")["error_details"] is None


def test_messages_that_are_no_tasks(worker):
    result = worker.send(b'\x01{"message_type":"task_cancel","data":{}}')
    assert result["error_details"]["code"] == "CouldNotExecuteUserTaskError"
    assert result["data"] == (
        "CouldNotExecuteUserTaskError('Non Task-type message received: TaskCancel (from: [41 bytes] "
        "0x017b226d65737361...)')"
    )
    assert "message had unknown protocol version 2" in worker.send(b"\x02{}")["data"]
    for nonsense in (b"", b"\x01", b"\x01[]", b'\x01{"message_type":"task"}', b"\x01\xff"):
        assert worker.send(nonsense)["error_details"]["code"] == "RemoteExecutionError"


def test_the_size_limit_counts_what_the_value_takes(start):
    worker = start(result_size_limit=1000)
    text = "def f(n): return 'x' * n"
    frame = 18  # what pickling adds to a text
    assert worker.value(text, 900) == "x" * 900
    largest = worker.run(source(text, f"[{1000 - frame}]"))
    assert largest["error_details"] is None and len(largest["data"]) > 1300, "as text it takes more, as it always did"
    result = worker.run(source(text, f"[{1001 - frame}]"))
    explanation = (
        "The result takes 1001 bytes, and this endpoint lets a result take 1000 bytes (engine.result_size_limit: 1000 "
        "in its config.yaml). Write it to a file and return the file's name, or have the endpoint's owner raise the limit."
    )
    assert result["data"] == f"MaxResultSizeExceeded(1001, 1000)\n{explanation}"
    assert result["error_details"] == {
        "code": "MaxResultSizeExceeded",
        "user_message": "remote error: Task result of 1001B exceeded current limit of 1000B",
    }
    dill = "globus_compute_sdk.serialize.DillDataBase64"
    for count, code in [(1000 - frame, None), (1001 - frame, "MaxResultSizeExceeded")]:
        error = worker.run(source(text, f"[{count}]"), result_serializers=[dill])["error_details"]
        assert (error and error["code"]) == code


def test_ten_megabytes_of_bytes_return(start):
    worker = start()
    result = worker.run(source("def f(): return bytes(9_900_000)"))
    assert result["error_details"] is None, result["data"]
    refused = worker.error("def f(): return bytes(10_500_000)")
    assert "The result takes 10.5 MB, and this endpoint lets a result take 10.5 MB (engine.result_size_limit: 10485760" in refused
    assert "serializ" not in refused and "pickl" not in refused, "the SDK would take it for a problem of serializing"


def test_no_limit_lets_a_message_grow_beyond_what_crosses(start):
    worker = start(result_size_limit=64 << 20)
    text = "def f(n): return '\"' * n"
    result = worker.run(source(text, "[21000000]"), result_serializers=[JSON])
    assert result["error_details"]["code"] == "MaxResultSizeExceeded"
    assert "takes 84.0 MB as text, and no message may take more than 82.8 MB" in result["data"]
    assert worker.value("def f(): return 1") == 1


UNSENDABLE = {
    "(i for i in ())": "returned a generator, which can't leave its process: return a list of what it yields",
    "wait()": "returned a coroutine, which nobody has run (it is an `async def`, or calls one)",
    "again()": "returned an asynchronous generator, which can't leave its process",
}


@pytest.mark.parametrize("expression", UNSENDABLE)
def test_a_generator_or_coroutine_is_told_in_a_sentence(worker, expression):
    text = f"def f():\n    async def wait(): pass\n    async def again(): yield\n    return {expression}\n"
    for options in ({}, {"result_serializers": [JSON]}):
        result = worker.run(source(text), **options)
        assert result["error_details"]["code"] == "RemoteExecutionError"
        assert result["data"].startswith(f"TypeError: The function {UNSENDABLE[expression]}"), result["data"]
        assert result["data"].count("\n") == 1, "one sentence and no traceback"


@pytest.mark.parametrize(
    ("expression", "name", "bare"),
    [
        ("__import__('socket').socket()", "socket.socket", "cannot pickle 'socket' object"),
        ("memoryview(b'x')", "memoryview", "cannot pickle"),
        ("{'deep': [(i for i in ())]}", "dict", "cannot pickle 'generator' object"),
        ("Refuses()", "__main__.Refuses", "not this one"),
    ],
)
def test_what_cannot_be_sent_is_named(worker, expression, name, bare):
    text = "def f():\n    class Refuses:\n        def __reduce__(self): raise ValueError('not this one')\n"
    text += f"    Refuses.__module__, Refuses.__qualname__ = '__main__', 'Refuses'\n    return {expression}\n"
    last = worker.error(text).rstrip("\n").splitlines()[-1]
    assert last.startswith(
        "globus_compute_sdk.errors.error_types.SerializationError: Serialization failed: All strategies failed. "
        f"The function returned a value of type '{name}', which can't be serialized: "
    )
    assert bare in last and last.endswith("Return what can be sent, such as numbers, text, lists and dicts")


def test_result_serializers_are_tried_in_order(worker):
    paths = ["nowhere.Nothing", JSON, "globus_compute_sdk.serialize.DillDataBase64"]
    assert worker.run(source("def f(): return 1"), result_serializers=paths)["data"] == "11\n1"
    assert worker.run(source("def f(): return {1}"), result_serializers=paths)["data"].startswith("00\n")
    refused = worker.run(source("def f(): return 1"), result_serializers=paths[:1])["data"]
    assert refused.endswith("Serialization failed: All strategies failed.\n"), "the value is not to blame"
    refused = worker.run(source("def f(): return {1}"), result_serializers=paths[:2])["data"]
    assert "Strategy failures:" in refused
    assert "Invalid strategy-like 'nowhere.Nothing'. Expected either" in refused
    assert "Object of type set is not JSON serializable" in refused
    assert "Serialization failed: All strategies failed. The function returned a value of type 'set'" in refused


def test_a_timeout_interrupts_a_sleeping_call(start):
    worker = start(environment={"GC_TASK_TIMEOUT": "0.2"})
    assert worker.error("def f():\n    import time\n    time.sleep(1000)").endswith("parsl.app.errors.AppTimeout\n")
    assert worker.value("def f(): return 1") == 1


def test_what_stays_between_tasks_and_what_does_not(start):
    worker = start(environments.python("sdk-4.19.0"))
    assert worker.value("def f():\n    import __main__\n    return sorted(vars(__main__))") == sorted(
        {"__annotations__", "__builtins__", "__doc__", "__loader__", "__name__", "__package__", "__spec__"}
    )
    for entry in GOLDEN["sdk-4.19.0"]["entries"]:
        if entry["name"] == "DillDataBase64/class of __main__":
            worker.run(entry["buffer"])
    count = "def f():\n    import __main__\n    __main__.n = getattr(__main__, 'n', 0) + 1\n    return __main__.n"
    assert [worker.value(count), worker.value(count)] == [1, 2]
    worker.value("def f():\n    import os\n    os.environ['KEPT'] = 'yes'\n    os.chdir('/')")
    look = "def f():\n    import os, sys\n    return [os.environ.get('KEPT'), os.getcwd(), [p for p in sys.path if 'library' in p]]"
    assert worker.value(look) == ["yes", os.path.realpath(worker.working_dir), []]
    assert worker.value("def f():\n    import os\n    return 'FARCALL_WORKER_CONFIG' in os.environ") is False


def test_a_directory_that_cannot_be_made_is_the_engines_failure(start, tmp_path):
    (tmp_path / "file").write_text("in the way")
    worker = start(working_dir=str(tmp_path / "file" / "work"))
    result = worker.run(source("def f(): pass"))
    assert result["data"].startswith("+" * 68 + "\nTraceback (most recent call last):\n")
    assert result["data"].endswith("\n" + "-" * 68) and "NotADirectoryError" in result["data"]
    assert result["details"] is None
    assert [(s["state"], s["actor"]) for s in result["task_statuses"]] == [
        ("waiting-for-launch", "interchange"),
        ("execution-end", "interchange"),
    ]


def test_an_empty_sandbox_goes_with_its_task_and_what_is_left_there_stays(start, tmp_path):
    work = tmp_path / "work"
    worker = start(run_in_sandbox=True, working_dir=str(work))
    assert not Path(worker.value("def f():\n import os\n return os.getcwd()")).exists()
    removes = "def f():\n import os\n os.rmdir(os.getcwd())\n return 'removed'"
    assert worker.value(removes) == "removed"
    assert "ValueError" in worker.error("def f(): raise ValueError()")
    assert list(work.iterdir()) == []
    kept = Path(worker.value("def f():\n import os\n open('data', 'w').close()\n return os.getcwd()"))
    assert [path.name for path in kept.iterdir()] == ["data"] and kept.parent == work


def test_a_shell_function_past_its_walltime_is_killed_without_the_sdk(start, tmp_path):
    worker = start(run_in_sandbox=True)
    entry = next(e for e in GOLDEN["sdk-4.19.0"]["entries"] if e["name"] == "DillCode/ShellFunction")
    worker.run(entry["buffer"])  # the stand-ins are there now
    text = """def f(path):
        import sys
        shell = sys.modules["farcall-worker.shell_function"].ShellFunction()
        shell.__dict__.update(cmd="echo begun; sleep 1000; touch " + path, stdout=None, stderr=None, walltime=0.5,
                              snippet_lines=10, return_dict=True)
        return shell()
    """
    result = worker.value(text, str(tmp_path / "late"))
    assert (result["returncode"], result["exception_name"]) == (124, "subprocess.TimeoutExpired")
    assert (result["stdout"], result["stderr"]) == ("begun\n", "")


def test_a_shell_result_within_another_value_names_the_sdk_and_leaves_no_module(start):
    """Also while a value is being pickled, which may run code of the function's."""
    text = """def f():
        import sys
        shell = sys.modules["farcall-worker.shell_function"].ShellFunction()
        shell.__dict__.update(cmd="echo said", stdout=None, stderr=None, walltime=None, snippet_lines=10)
        class Looks:
            def __reduce__(self):
                found = [name for name in sys.modules if name.startswith("globus_compute_sdk")]
                try:
                    import globus_compute_sdk
                except ImportError:
                    found.append("not importable")
                return str, (" ".join(found),)
        result = shell()
        return [result, result, Looks()]
    """
    shell = next(e for e in GOLDEN["sdk-4.19.0"]["entries"] if e["name"] == "DillCode/ShellFunction")
    for interpreter, found in [(bare(), "not importable"), (environments.python("sdk-4.19.0"), "")]:
        worker = start(interpreter)
        worker.run(shell["buffer"])  # the stand-ins are there now
        result = worker.run(source(text))
        assert result["error_details"] is None, result["data"]
        script = """if True:
            import json, sys
            from globus_compute_sdk.sdk.shell_function import ShellResult
            from globus_compute_sdk.serialize import ComputeSerializer
            first, second, found = ComputeSerializer().deserialize(sys.stdin.read())
            assert type(first) is ShellResult and first is second, (first, second)
            print(json.dumps([first.stdout, found]))
        """
        read = subprocess.run(
            [environments.python("sdk-4.19.0"), "-c", script], input=result["data"], capture_output=True, text=True
        )
        assert read.returncode == 0, read.stderr
        assert json.loads(read.stdout) == ["said\n", found]


def path_of(interpreter, **environment):
    """The path as a script of this interpreter has it, without the script's own directory."""
    script = "import json, sys; print(json.dumps(sys.path[sys.path[:1] == ['']:]))"
    return json.loads(subprocess.run([interpreter, "-c", script], env=os.environ | environment, capture_output=True).stdout)


@pytest.mark.parametrize("safe", [{}, {"PYTHONSAFEPATH": "1"}])
def test_the_path_is_what_the_environment_makes_it(start, tmp_path, safe):
    """Neither the library nor the directory that the node runs in is on it, whether that would be or not."""
    ours = tmp_path / "ours"
    (ours / "deep").mkdir(parents=True)
    (ours / "farcall_worker.py").write_text("whose = 'the user'")
    (ours / "payloads.py").write_text("whose = 'the user'")
    here = tmp_path / "here"
    here.mkdir()
    (here / "json.py").write_text("raise SystemExit('the current directory is no place to import from')")
    environment = {"PYTHONPATH": f"{ours}:{ours / 'deep'}", **safe}
    worker = start(environment=environment, start_in=here)
    assert worker.value("def f():\n    import sys\n    return sys.path") == path_of(bare(), **environment)
    for name in ("farcall_worker", "payloads"):
        assert worker.value(f"def f():\n    import {name}\n    return {name}.whose") == "the user"
    for name in ("worker", "pickles", "shell", "threads", "timeout", "errors"):
        assert "ModuleNotFoundError" in worker.error(f"def f():\n    import {name}")


def test_no_module_of_the_workers_can_be_imported_by_its_name(start):
    look = "def f():\n    import sys\n    return [name for name in sys.modules if 'farcall' in name]"
    names = start().value(look)
    assert names and not any(name.isidentifier() for name in names)


def test_a_payload_that_needs_more_names_it(start):
    payload = "01\n" + __import__("base64").encodebytes(b"\x80\x04cdill._dill\n_create_lock\n.").decode()
    refused = start().run(pack(payload, "11\n[]", "11\n{}"))["data"]
    assert f"needs the package 'dill', which {bare()} (Python " in refused
    assert refused.endswith("or let the endpoint's worker_init choose an environment that has it\n")


def test_every_python_from_3_8_on_runs_source_and_its_own_byte_code(tmp_path):
    ours = next(e for e in GOLDEN["sdk-4.19.0"]["entries"] if e["name"] == "DillCode/closure")
    all_code = next(e for e in GOLDEN["sdk-4.19.0"]["entries"] if e["name"] == "AllCodeStrategies/add")
    for version, interpreter in versions.interpreters().items():
        worker = Worker(interpreter, tmp_path / version)
        try:
            assert worker.value("def f(x): return x + 1", 1) == 2
            same = worker.about["python"].startswith("3.11.")
            result = worker.run(ours["buffer"], function_python="3.11", result_serializers=[JSON])
            if same:
                assert result["data"] == "11\n6"
            else:
                assert "the function is byte code of Python 3.11, and this worker runs Python 3." in result["data"]
            assert worker.run(all_code["buffer"], function_python="3.11", result_serializers=[JSON])["data"] == "11\n42"
        finally:
            worker.close()
