"""The hot restart of our manager, which root runs: SIGHUP. Nothing that is under way notices it."""

import itertools
import os
import re
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import local_users
import pytest
from processes import until
from rest import Refused
from testbed import binary

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


def manager_of(shared_testbed, service, people, name, *users, of=local_users.OwnManager, **options):
    manager = of(shared_testbed, service, local_users.ids(people, *users), name=name, **options)
    shared_testbed.endpoints.append(manager)
    manager.configure()
    return manager


def restart(manager):
    """A hot restart that succeeds."""
    begun = manager.log_text().count("Endpoint Manager begins")
    os.kill(manager.process.pid, signal.SIGHUP)
    until(lambda: manager.log_text().count("Endpoint Manager begins") == begun + 1, "it begins again", 60)


class Limited(local_users.OwnManager):
    """It is started with these limits of open files."""

    def command(self, *arguments):
        return ["prlimit", "--nofile=700:3000", *super().command(*arguments)]


SLOW = """
    import sys

    def slow(seconds):
        import os, time

        time.sleep(seconds)
        return os.getppid()

    with executor(sys.argv[1]) as ex:
        future = ex.submit(slow, float(sys.argv[2]))
        report("submitted")
        report(future.result(timeout=100))
"""


def own_log(users, name, manager):
    """The log of this user's only user endpoint so far, once it is connected."""

    def connected():
        logs = Path(users[name].pw_dir).glob(f".globus_compute/uep.{manager.id}.*/endpoint.log")
        return [log for log in logs if "connected to the broker" in log.read_text()]

    (log,) = until(connected, f"{name}'s user endpoint is connected")
    return log


def registrations(service):
    return len(re.findall(r'method=(?:PUT|POST) path="/v3/endpoints(?:/[0-9a-f-]{36})?" ', service.process.output()))


def test_a_hot_restart_keeps_process_children_and_tasks(shared_testbed, service, users, people):
    """A broken configuration keeps the old program; a change that is registered causes one registration, another one none."""
    manager = manager_of(shared_testbed, service, people, "restarted", "alicia", "harper", of=Limited)
    manager.start()
    clients = [service.sdk("4.19.0", people[name]).start(SLOW, manager.id, 12) for name in ("alicia", "harper")]
    until(lambda: len(manager.children()) == 2, "both user endpoints run", 60)
    for client in clients:
        client.wait_for_report()
    until(lambda: manager.log_text().count("Command process successfully forked") == 2, "both are started")
    children, registered = set(manager.children()), registrations(service)
    logs = {name: own_log(users, name, manager) for name in ("alicia", "harper")}

    (manager.home / "config.yaml").write_text("multi_user: [")
    os.kill(manager.process.pid, signal.SIGHUP)
    manager.wait_for_log("the manager is not restarted, and goes on as it was: .*Invalid config syntax: ")
    assert set(manager.children()) == children and manager.process.running()

    manager.write_config(heartbeat_period=7)
    os.kill(manager.process.pid, signal.SIGHUP)
    manager.wait_for_log(rf"\.{{10}} Manager hot restarting {manager.id} \(task processors: 2\)")
    until(lambda: manager.log_text().count("Endpoint Manager begins") == 2, "it begins again")
    assert manager.process.running()
    assert set(manager.children()) == children
    assert registrations(service) == registered
    status = f"/v2/endpoints/{manager.id}/status"
    until(lambda: service.rest().get(status)["details"].get("heartbeat_period") == 7, "the changed setting holds")

    (fresh,) = service.sdk("4.19.0", people["alicia"]).run(
        """
        import sys

        def limits():
            import resource

            return resource.getrlimit(resource.RLIMIT_NOFILE)

        with executor(sys.argv[1], user_endpoint_config={"workers": 3}) as ex:
            report(ex.submit(limits).result(timeout=100))
        """,
        manager.id,
    )
    assert fresh == [700, 3000], "the manager's own limit is raised, and stays so over the restart"
    assert "Max open files            3000                 3000 " in Path(f"/proc/{manager.process.pid}/limits").read_text()
    for client in clients:
        reports = client.finish()
        assert len(reports) == 2, reports
    assert children <= set(manager.children())
    for name, log in logs.items():
        assert log.read_text().count("connected to the broker") == 1, f"{name}'s user endpoint stays connected"
    title = Path(f"/proc/{manager.process.pid}/cmdline").read_bytes()
    assert title.startswith(b"Globus Compute Endpoint *(")

    manager.write_config(heartbeat_period=7, display_name="another")
    os.kill(manager.process.pid, signal.SIGHUP)
    until(lambda: registrations(service) == registered + 1, "the changed name is registered")
    until(manager.online, "the service shows it online")
    os.kill(manager.process.pid, signal.SIGTERM)
    assert manager.process.wait(20) == 0
    assert not any(Path(f"/proc/{child}").exists() for child in children)


ONE = """
    import sys

    def one():
        import os

        return os.getppid()

    with executor(sys.argv[1]) as ex:
        report(ex.submit(one).result(timeout=100))
"""

CHECKED_AND_GONE = """#!/bin/sh
# Another program, which takes over nothing.
rm "$0"
"""


class Installed(local_users.OwnManager):
    """Its program is in a directory of its own version, to which a link leads."""

    @property
    def versions(self):
        return self.testbed.directory / f"{self.name}-versions"

    def install(self, version):
        place = self.versions / version
        place.mkdir(parents=True)
        shutil.copy(binary("globus-compute-endpoint"), place / "globus-compute-endpoint")
        return place / "globus-compute-endpoint"

    def choose(self, version):
        """Moves the link."""
        draft = self.versions / "draft"
        draft.symlink_to(version)
        draft.rename(self.versions / "current")

    def command(self, *arguments):
        return [self.versions / "current" / "globus-compute-endpoint", *super().command(*arguments)[1:]]

    def runs(self):
        return os.readlink(f"/proc/{self.process.pid}/exe")


def test_another_program_takes_over_by_a_link_or_in_the_place_of_the_file(shared_testbed, service, users, people):
    """User endpoints keep theirs. A program that can't be executed replaces nothing."""
    manager = manager_of(shared_testbed, service, people, "upgraded", "alicia", of=Installed)
    first = manager.install("1")
    manager.choose("1")
    manager.start()
    sdk = service.sdk("4.19.0", people["alicia"])
    sdk.run(ONE, manager.id)
    (child,) = manager.children()
    user_endpoint = os.readlink(f"/proc/{child}/exe")
    assert manager.runs() == str(first)

    second = manager.install("2")
    manager.choose("2")
    restart(manager)
    assert manager.runs() == str(second)

    # As package managers do it.
    shutil.copy(first, second.with_suffix(".new"))
    second.with_suffix(".new").rename(second)
    assert manager.runs() == f"{second} (deleted)"
    restart(manager)
    assert manager.runs() == str(second)

    second.rename(second.with_suffix(".old"))
    second.write_text("no program")
    second.chmod(0o755)
    os.kill(manager.process.pid, signal.SIGHUP)
    manager.wait_for_log(rf"the manager is not restarted, and goes on as it was: {re.escape(str(manager.versions))}/current/\S+: ")

    second.write_text(CHECKED_AND_GONE)
    restart(manager)
    manager.wait_for_log(r"the program of before goes on, because another could not be executed: \S+: No such file or directory")
    assert manager.runs() == str(second.with_suffix(".old"))

    assert manager.children() == [child]
    assert os.readlink(f"/proc/{child}/exe") == user_endpoint
    sdk.run(ONE, manager.id)
    assert manager.children() == [child]


def test_no_command_is_lost_or_carried_out_twice(shared_testbed, service, users, people):
    """Each of these commands leads to one answer, that its option has the wrong type."""
    schema = {"type": "object", "properties": {"number": {"type": "string"}}}
    manager = manager_of(shared_testbed, service, people, "stream", "alicia", schema=schema)
    manager.start()
    rest = service.rest(people["alicia"])
    function = rest.post("/v3/functions", {"function_name": "f", "function_code": "7\n01\ngASV"})["function_uuid"]

    numbers, answers, done = itertools.count(1000), {}, threading.Event()

    def submit():
        while not done.is_set():
            number = next(numbers)
            body = {"tasks": {function: ["7\n01\ngASV"]}, "user_endpoint_config": {"number": number}}
            try:
                answers[number] = rest.post(f"/v3/endpoints/{manager.id}/submit", body)
            except Refused as refused:
                answers[number] = refused
            # A restart waits for a moment in which nothing is under way.
            time.sleep(0.1)

    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(submit) for _ in range(3)]
        try:
            for _ in range(6):
                restart(manager)
        finally:
            done.set()
        for client in clients:
            client.result()
    for number, refused in answers.items():
        assert isinstance(refused, Refused) and refused.status == 422, refused
        assert f"{number} is not of type 'string'" in refused.body
    told = manager.log_text()
    counts = {number: len(re.findall(rf"^.* ERROR .*{number} is not of type 'string'", told, re.MULTILINE)) for number in answers}
    assert set(counts.values()) == {1}, counts
    assert not manager.children()
