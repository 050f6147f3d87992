"""A hot restart of our manager while something is wrong: its user endpoints live on, or are told to end."""

import os
import signal
from pathlib import Path

import local_users
import pytest
from processes import until

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))

ONE = """
    import sys

    def one():
        import os

        return os.getppid()

    with executor(sys.argv[1]) as ex:
        report(ex.submit(one).result(timeout=100))
"""


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


@pytest.fixture
def manager(shared_testbed, service, users, people, request):
    name = request.node.name.removeprefix("test_")[:30]
    manager = local_users.OwnManager(shared_testbed, service, local_users.ids(people, "alicia"), name=name)
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    return manager


def begun(manager, times):
    until(lambda: manager.log_text().count("Endpoint Manager begins") == times, f"it began {times} times")


def test_a_restart_without_the_service(service, manager, people):
    """The manager and its user endpoints wait for it."""
    sdk = service.sdk("4.19.0", people["alicia"])
    sdk.run(ONE, manager.id)
    children = manager.children()
    service.stop()
    os.kill(manager.process.pid, signal.SIGHUP)
    begun(manager, 2)
    assert manager.children() == children
    service.start()
    until(manager.online, "the service shows it online", 40)
    assert manager.children() == children
    sdk.run(ONE, manager.id)


def test_a_restart_with_credentials_that_are_refused(service, manager, people):
    """The manager registers again. The service refuses that, too, so everything ends in order."""
    service.sdk("4.19.0", people["alicia"]).run(ONE, manager.id)
    (child,) = manager.children()
    service.stop()
    os.kill(manager.process.pid, signal.SIGHUP)
    begun(manager, 2)
    os.kill(manager.process.pid, signal.SIGSTOP)
    try:
        service.start()
        service.rest().post(f"/v2/endpoints/{manager.id}/lock", {})
    finally:
        os.kill(manager.process.pid, signal.SIGCONT)
    assert manager.process.wait(60) == 0
    log = manager.log_text()
    assert "the broker does not accept the credentials; registering again" in log
    assert "no new credentials: Endpoint registration blocked." in log
    assert f"Command stopped normally ({child}) [(alicia, uep." in log


def test_a_stop_during_a_restart_without_the_service(service, manager, people):
    """It waits for the service; SIGTERM ends user endpoints in order, and then the manager."""
    service.sdk("4.19.0", people["alicia"]).run(ONE, manager.id)
    (child,) = manager.children()
    service.stop()
    try:
        os.kill(manager.process.pid, signal.SIGHUP)
        begun(manager, 2)
        assert manager.children() == [child]
        os.kill(manager.process.pid, signal.SIGTERM)
        assert manager.process.wait(30) == 0
        assert f"Signaling shutdown of user endpoint (PID: {child}, UID" in manager.log_text()
        assert f"Command stopped normally ({child}) [(alicia, uep." in manager.log_text()
        assert not Path(f"/proc/{child}").exists()
        assert not (manager.home / "daemon.pid").exists()
    finally:
        service.start()
