"""Upstream's endpoint 4.19.0, unmodified, against our service: a manager that starts a user endpoint for each
configuration that is asked for."""

import os
import signal

import pytest
from processes import until

TEMPLATE = """
    engine:
      type: {{ engine|default("ThreadPoolEngine") }}
      max_workers: {{ workers|default(1) }}
    idle_heartbeats_soft: 10
"""
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"workers": {"type": "integer"}, "engine": {"type": "string"}},
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def release():
    """That the other SDK gets on with a manager is shown in every cell of the matrix."""
    return "4.19.0"


@pytest.fixture(scope="module")
def manager(shared_testbed, service):
    return shared_testbed.manager(service, TEMPLATE, schema=SCHEMA)


def test_a_user_endpoint_for_each_configuration(sdk, manager):
    reports = sdk.run(
        """
        import sys
        from concurrent.futures import ThreadPoolExecutor

        def where():
            import os

            return os.getpid()

        def inverse(x):
            return 1 / x

        with executor(sys.argv[1]) as ex:
            report([future.result(timeout=100) for future in [ex.submit(where) for _ in range(20)]])
            report(ex.submit(inverse, 4).result(timeout=60))
            report("ZeroDivisionError" in str(ex.submit(inverse, 0).exception(timeout=60)))
        with executor(sys.argv[1], user_endpoint_config={"workers": 2}) as ex:
            report(ex.submit(where).result(timeout=100))
        with executor(sys.argv[1], user_endpoint_config={"workers": 2}) as ex:
            report(ex.submit(where).result(timeout=60))
        """,
        manager.id,
        timeout=170,
    )
    plain, fourth, failed, two, two_again = reports
    assert len(set(plain)) == 1
    assert (fourth, failed) == (0.25, True)
    assert two == two_again
    assert two != plain[0]


def test_what_the_manager_refuses_is_told_with_its_reason(sdk, manager):
    (text,) = sdk.run(
        """
        import sys

        def nothing():
            pass

        with executor(sys.argv[1], user_endpoint_config={"workers": "many"}) as ex:
            report(str(ex.submit(nothing).exception(timeout=100)))
        """,
        manager.id,
    )
    assert "SEMANTICALLY_INVALID" in text
    assert "Request payload failed validation: " in text
    assert "'many' is not of type 'integer'" in text


def test_a_manager_without_privileges_serves_its_owner_only(service, manager, release):
    stranger = service.sdk(release, service.add_client("stranger"))
    (text,) = stranger.run(
        """
        import sys

        def nothing():
            pass

        with executor(sys.argv[1]) as ex:
            report(str(ex.submit(nothing).exception(timeout=100)))
        """,
        manager.id,
    )
    assert "ENDPOINT_NOT_FOUND" in text


@pytest.mark.long
def test_a_user_endpoint_that_is_killed_is_started_again(testbed):
    """Nobody submits anew. What it had not acknowledged runs on the new one; what it had is said to be lost."""
    service = testbed.service()
    manager = testbed.manager(service, TEMPLATE + "    heartbeat_period: 5\n", schema=SCHEMA)
    begun = testbed.directory / "begun"
    script = service.sdk("4.19.0").start(
        """
        import sys

        def once(begun):
            import os, pathlib, time
            with open(begun, "a") as file:
                file.write(f"{os.getpid()}\\n")
            while len(pathlib.Path(begun).read_text().split()) == 1:
                time.sleep(0.1)
            return "again"

        def where():
            import os

            return os.getpid()

        with executor(sys.argv[1]) as ex:
            future = ex.submit(once, sys.argv[2])
            error = future.exception(timeout=150)
            report(str(error or future.result()))
            report(ex.submit(where).result(timeout=60))
        """,
        manager.id,
        begun,
    )
    until(lambda: begun.exists() and begun.read_text().endswith("\n"), "the task runs", 60)
    first = int(begun.read_text())
    os.kill(first, signal.SIGKILL)
    said, pid = script.finish(timeout=175)
    assert said == "again" or "loss of endpoint" in said, said
    assert pid != first
    assert "starting a user endpoint again: it has ended and has open tasks" in service.process.output()


def test_the_same_manager_after_a_restart(service, manager):
    """The last one of this file: it stops the manager, and with it its user endpoints."""
    manager.stop()
    until(lambda: not manager.online(), "the manager is offline")
    known = manager.id
    manager.start()
    assert manager.id == known
    reports = service.sdk("4.19.0").run(
        """
        import sys

        def double(x):
            return x + x

        with executor(sys.argv[1]) as ex:
            report(ex.submit(double, 21).result(timeout=100))
        """,
        manager.id,
    )
    assert reports == [42]
