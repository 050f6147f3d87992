"""The stock SDK from PyPI gets its results through everything of ours: service, broker, endpoint, node, worker; and
through upstream's endpoints.

The first scenario is played in every cell of the matrix, the others on its diagonal."""

import uuid

import pytest
from matrix import cells, diagonal
from processes import until


everywhere = pytest.mark.parametrize("cell", cells(), indirect=True, ids=str, scope="module")
on_the_diagonal = pytest.mark.parametrize("cell", diagonal(), indirect=True, ids=str, scope="module")


@everywhere
def test_a_first_session(sdk, endpoint):
    """A value, some at once, an error, a result taken up by its group, and one over REST alone."""
    reports = sdk.run(
        """
        import sys

        def inverse(x):
            return 1 / x

        with executor(sys.argv[1]) as ex:
            report(ex.submit(inverse, 4).result(timeout=100))
            futures = [ex.submit(inverse, x) for x in (1, 2, 4)]
            report([future.result(timeout=60) for future in futures])
            report("ZeroDivisionError: division by zero" in str(ex.submit(inverse, 0).exception(timeout=60)))
            group = ex.task_group_id
        with executor(sys.argv[1], task_group_id=group) as ex:
            ended = list(ex.reload_tasks())
            report(sorted(future.result(timeout=60) for future in ended if future.exception(timeout=60) is None))
        report(Client().get_result(futures[1].task_id))
        """,
        endpoint.id,
        timeout=170,
    )
    assert reports == [0.25, [1.0, 0.5, 0.25], True, [0.25, 0.25, 0.5, 1.0], 0.5]


@on_the_diagonal
def test_a_value(sdk, endpoint):
    reports = sdk.run(
        """
        import sys

        def double(x):
            return 2 * x

        with executor(sys.argv[1]) as ex:
            report(ex.submit(double, 21).result(timeout=60))
        """,
        endpoint.id,
    )
    assert reports == [42]


@on_the_diagonal
def test_arguments_of_every_kind(sdk, endpoint):
    reports = sdk.run(
        """
        import datetime
        import sys

        def echo(*args, **kwargs):
            return args, kwargs

        args = (1, "grün ✓", b"\\x00\\xff", None, {"a": [1.5, (2, 3)]}, datetime.date(2026, 1, 2))
        with executor(sys.argv[1]) as ex:
            got = ex.submit(echo, *args, key={1, 2}).result(timeout=60)
            report(got == (args, {"key": {1, 2}}))
        """,
        endpoint.id,
    )
    assert reports == [True]


@on_the_diagonal
def test_an_error_comes_with_its_traceback(sdk, endpoint):
    reports = sdk.run(
        """
        import sys

        def inverse(x):
            return 1 / x

        with executor(sys.argv[1]) as ex:
            error = ex.submit(inverse, 0).exception(timeout=60)
            report([type(error).__name__, str(error)])
        """,
        endpoint.id,
    )
    [[name, text]] = reports
    assert name == "TaskExecutionFailed"
    assert "Traceback (most recent call last)" in text
    assert "in inverse" in text
    assert "ZeroDivisionError: division by zero" in text


@on_the_diagonal
def test_two_hundred_at_once(sdk, endpoint):
    reports = sdk.run(
        """
        import sys

        def square(x):
            return x * x

        with executor(sys.argv[1]) as ex:
            futures = [ex.submit(square, n) for n in range(200)]
            report([future.result(timeout=60) for future in futures])
        """,
        endpoint.id,
    )
    assert reports == [[n * n for n in range(200)]]


@on_the_diagonal
def test_thousands_at_once(sdk, endpoint):
    """More than any window on the way holds at a time."""
    reports = sdk.run(
        """
        import sys

        def negative(x):
            return -x

        with executor(sys.argv[1]) as ex:
            futures = [ex.submit(negative, n) for n in range(4000)]
            report(sum(future.result(timeout=100) for future in futures))
        """,
        endpoint.id,
        timeout=150,
    )
    assert reports == [-sum(range(4000))]


@on_the_diagonal
def test_two_tasks_run_side_by_side(sdk, endpoint):
    """Each waits until the other has begun: one worker alone would never end them."""
    reports = sdk.run(
        """
        import sys

        def meet(directory, me, other):
            import pathlib, time
            pathlib.Path(directory, me).touch()
            end = time.monotonic() + 30
            while not pathlib.Path(directory, other).exists():
                if time.monotonic() > end:
                    return "alone"
                time.sleep(0.01)
            return "met"

        with executor(sys.argv[1]) as ex:
            futures = [ex.submit(meet, sys.argv[2], "a", "b"), ex.submit(meet, sys.argv[2], "b", "a")]
            report([future.result(timeout=60) for future in futures])
        """,
        endpoint.id,
        _directory(endpoint),
    )
    assert reports == [["met", "met"]]


@on_the_diagonal
def test_what_a_function_prints_harms_nothing(sdk, endpoint):
    reports = sdk.run(
        """
        import sys

        def noisy():
            import os, sys
            print("to standard output")
            print("to standard error", file=sys.stderr)
            os.write(1, b"straight to the file descriptor\\n")
            return sys.stdin.read()

        with executor(sys.argv[1]) as ex:
            report(ex.submit(noisy).result(timeout=60))
            report(ex.submit(noisy).result(timeout=60))
        """,
        endpoint.id,
    )
    assert reports == ["", ""]


@on_the_diagonal
def test_a_megabyte_each_way(sdk, endpoint):
    reports = sdk.run(
        """
        import sys

        def reverse(data):
            return data[::-1]

        data = bytes(range(256)) * 4096
        with executor(sys.argv[1]) as ex:
            report(ex.submit(reverse, data).result(timeout=60) == data[::-1])
        """,
        endpoint.id,
    )
    assert reports == [True]


@on_the_diagonal
def test_a_registered_function_runs_by_its_id(sdk, endpoint):
    reports = sdk.run(
        """
        import sys

        def greet(name):
            return f"hello {name}"

        function = Client().register_function(greet)
        with executor(sys.argv[1]) as ex:
            report(ex.submit_to_registered_function(function, args=("you",)).result(timeout=60))
        """,
        endpoint.id,
    )
    assert reports == ["hello you"]


@on_the_diagonal
def test_the_batch_client(sdk, endpoint):
    """`Client` asks over REST and never opens a result queue."""
    reports = sdk.run(
        """
        import sys, time
        from globus_compute_sdk.errors import TaskExecutionFailed

        def half(x):
            if x % 2:
                raise ValueError(f"{x} is odd")
            return x // 2

        client = Client()
        function = client.register_function(half)
        batch = client.create_batch()
        for x in (4, 5, 6):
            batch.add(function, args=(x,))
        tasks = client.batch_run(sys.argv[1], batch)["tasks"][function]
        end = time.monotonic() + 60
        for task in tasks:
            while True:
                try:
                    if not client.get_task(task)["pending"]:
                        report(["value", client.get_result(task)])
                        break
                except TaskExecutionFailed as error:
                    report(["error", "ValueError: 5 is odd" in str(error)])
                    break
                if time.monotonic() > end:
                    break
                time.sleep(0.1)
        found = client.get_batch_result([tasks[0], tasks[2]])
        report([found[task]["result"] for task in (tasks[0], tasks[2])])
        report(client.get_task(tasks[0])["status"])
        """,
        endpoint.id,
    )
    assert reports == [["value", 2], ["error", True], ["value", 3], [2, 3], "success"]


@on_the_diagonal
def test_a_task_group_is_shared_and_reloaded(sdk, endpoint):
    """A second program, given only the group's id, gets the results of the first."""
    group = sdk.run(
        """
        import sys

        def add(a, b):
            return a + b

        ex = executor(sys.argv[1])
        futures = [ex.submit(add, n, 100) for n in range(5)]
        for future in futures:
            future.result(timeout=60)
        report([ex.task_group_id and str(ex.task_group_id), sorted(future.task_id for future in futures)])
        ex.shutdown()
        """,
        endpoint.id,
    )
    [[group_id, task_ids]] = group
    assert uuid.UUID(group_id)
    reports = sdk.run(
        """
        import sys

        def failing():
            raise RuntimeError("on purpose")

        with executor(sys.argv[1], task_group_id=sys.argv[2]) as ex:
            futures = list(ex.reload_tasks())
            report(sorted(future.task_id for future in futures))
            report(sorted(future.result(timeout=60) for future in futures))
            report("RuntimeError: on purpose" in str(ex.submit(failing).exception(timeout=60)))
            report(str(ex.task_group_id))
        """,
        endpoint.id,
        group_id,
    )
    assert reports == [task_ids, [100, 101, 102, 103, 104], True, group_id]


@on_the_diagonal
def test_a_pending_task_is_reloaded(sdk, endpoint):
    """The first program leaves while its task runs; the second awaits the same task over the group's queue."""
    directory = _directory(endpoint)
    [group_id] = sdk.run(
        """
        import sys, os

        def wait_for(path):
            import pathlib, time
            end = time.monotonic() + 60
            while not pathlib.Path(path).exists() and time.monotonic() < end:
                time.sleep(0.02)
            return "seen" if pathlib.Path(path).exists() else "never"

        import time
        ex = executor(sys.argv[1])
        future = ex.submit(wait_for, sys.argv[2] + "/go")
        while future.task_id is None:
            time.sleep(0.01)
        report(str(ex.task_group_id))
        os._exit(0)
        """,
        endpoint.id,
        directory,
    )
    second = sdk.start(
        """
        import sys

        with executor(sys.argv[1], task_group_id=sys.argv[2]) as ex:
            [future] = ex.reload_tasks()
            report(future.done())
            report(future.result(timeout=60))
        """,
        endpoint.id,
        group_id,
    )
    assert second.wait_for_report() is False
    (directory / "go").touch()
    assert second.finish() == [False, "seen"]


def test_endpoints_leave_in_order(shared_testbed):
    """The last one of this file."""
    for endpoint in shared_testbed.endpoints:
        endpoint.stop()
        until(lambda: not endpoint.online(), f"{endpoint.name} is offline", 10)


def _directory(endpoint):
    """A directory that client and workers can see."""
    directory = endpoint.testbed.directory / f"shared-{uuid.uuid4()}"
    directory.mkdir()
    return directory


def test_the_stock_executor_never_meets_the_rate_limit(service, sdk, endpoint):
    """As it comes, and as eager as it lets itself be made; with the limits as they come."""
    reports = sdk.run(
        """
        import sys

        def distinct(n):
            # Another function each time: one more request each.
            space = {}
            exec(f"def f{n}():\\n    return {n}", space)
            return space[f"f{n}"]

        def same(n):
            return n

        with Executor(endpoint_id=sys.argv[1]) as ex:
            futures = [ex.submit(same, n) for n in range(500)]
            report(sum(future.result(timeout=100) for future in futures))
        eager = [
            Executor(endpoint_id=sys.argv[1], batch_size=8, api_burst_limit=8, api_burst_window_s=1) for _ in range(5)
        ]
        client = Client()
        functions = [client.register_function(distinct(n)) for n in range(100)]
        futures = [ex.submit_to_registered_function(id, ()) for id in functions[:10] for ex in eager]
        report(len([future.result(timeout=100) for future in futures]))
        for _ in range(100):
            client.get_endpoint_status(sys.argv[1])
        for ex in eager:
            ex.shutdown()
        """,
        endpoint.id,
        timeout=170,
    )
    assert reports == [sum(range(500)), 50]
    log = service.process.output()
    assert log.count("status=200") > 200
    assert "status=429" not in log
