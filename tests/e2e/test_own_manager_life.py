"""The life of the user endpoints of our manager: idle, revived, and below the manager of an ordinary user."""

import os
import signal
from pathlib import Path

import local_users
import pytest
from processes import until

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


@pytest.fixture(scope="module")
def manager(shared_testbed, service, users, people):
    manager = local_users.OwnManager(shared_testbed, service, local_users.ids(people, "alicia", "harper"))
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    return manager


ONE = """
    import json, sys

    def one():
        import os

        return os.getppid()

    with executor(sys.argv[1], user_endpoint_config=json.loads(sys.argv[2])) as ex:
        report(ex.submit(one).result(timeout=100))
"""


def test_an_idle_user_endpoint_ends_and_the_next_task_starts_it_again(service, manager, users, people):
    sdk = service.sdk("4.19.0", people["alicia"])
    sdk.run(ONE, manager.id, '{"soft": 2}')
    (first,) = manager.children()
    title = Path(f"/proc/{first}/cmdline")
    until(lambda: title.read_bytes().startswith(b"[idle; shut down in 5s] Globus Compute Endpoint ("), "the countdown", 20)
    manager.wait_for_log(rf"Command stopped normally \({first}\) \[\(alicia, uep\.", 40)
    assert not manager.children()
    sdk.run(ONE, manager.id, '{"soft": 2}')
    assert len(manager.children()) == 1


def test_a_task_for_a_user_endpoint_that_is_about_to_end_is_not_lost(service, manager, users, people):
    """It comes while the user endpoint stops and waits for the old task."""
    script = """
        import sys, time

        def slow(seconds):
            import os, time

            time.sleep(seconds)
            return os.getppid()

        with executor(sys.argv[1]) as ex:
            first = ex.submit(slow, 5)
            # The user endpoint runs already, so the task begins at once.
            time.sleep(2)
            report("runs")
            time.sleep(1)
            report(ex.submit(slow, 0).result(timeout=100))
            report(str(first.exception(timeout=100) or first.result()))
    """
    sdk = service.sdk("4.19.0", people["harper"])
    sdk.run(ONE, manager.id, "{}")
    (first,) = [pid for pid in manager.children() if pid in local_users.processes_of("harper")]
    client = sdk.start(script, manager.id)
    client.wait_for_report()
    os.kill(first, signal.SIGTERM)
    reports = client.finish()
    assert len(reports) == 3, reports
    (second,) = [pid for pid in manager.children() if pid in local_users.processes_of("harper")]
    assert second != first


def test_a_personal_manager_serves_its_owner(shared_testbed, service, users, people):
    tory = users["tory"]
    manager = local_users.PersonalManager(shared_testbed, service, tory, people["tory"], name="personal")
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    sdk = service.sdk("4.19.0", people["tory"])
    for config in ("{}", '{"workers": 2}'):
        sdk.run(ONE, manager.id, config)
    children = manager.children()
    assert len(children) == 2
    assert set(children) <= set(local_users.processes_of("tory"))
    assert "identity mapping configuration will be ignored" in manager.log_text()
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes()
        assert b"GLOBUS_COMPUTE_CLIENT_SECRET" not in environment
    stranger = service.sdk("4.19.0", people["alicia"]).start(
        """
        import sys

        def nothing():
            pass

        with executor(sys.argv[1]) as ex:
            report(str(ex.submit(nothing).exception(timeout=100)))
        """,
        manager.id,
    )
    (text,) = stranger.finish()
    assert "ENDPOINT_NOT_FOUND" in text
    manager.kill()
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "its user endpoints are gone, which is promised within 2 s", 10)
