"""Our manager, started by root: every person's tasks run in a process of their own, as their own local user."""

import os
import re
import signal
from pathlib import Path

import local_users
import pytest
from processes import until

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))

WHO = """
    import sys

    def who():
        import os

        return [os.getuid(), os.getgid(), sorted(os.getgroups()), os.getcwd(), os.environ["HOME"], os.environ["USER"], os.getppid()]

    with executor(sys.argv[1]) as ex:
        report(ex.submit(who).result(timeout=100))
"""

REFUSED = """
    import sys, time

    def nothing():
        pass

    began = time.monotonic()
    with executor(sys.argv[1]) as ex:
        report(str(ex.submit(nothing).exception(timeout=100)))
    report(time.monotonic() - began)
"""


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


@pytest.fixture(scope="module")
def manager(shared_testbed, service, users, people):
    manager = local_users.OwnManager(shared_testbed, service, local_users.ids(people, *local_users.NAMES, "ghost"))
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    return manager


def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def user_endpoint(manager, name):
    """The process of this user's only user endpoint."""
    pids = [pid for pid in manager.children() if pid in local_users.processes_of(name)]
    assert len(pids) == 1, pids
    return pids[0]


def test_a_task_runs_as_its_own_user(service, manager, users, people):
    ((uid, gid, groups, cwd, home, user, _),) = service.sdk("4.19.0", people["alicia"]).run(WHO, manager.id)
    alicia = users["alicia"]
    assert (uid, gid, home, user) == (alicia.pw_uid, alicia.pw_gid, alicia.pw_dir, "alicia")
    assert groups == [alicia.pw_gid]
    assert cwd.startswith(alicia.pw_dir)

    pid = user_endpoint(manager, "alicia")
    status = status_of(pid)
    assert set(status["Uid"].split()) == {str(alicia.pw_uid)} and set(status["Gid"].split()) == {str(alicia.pw_gid)}
    assert status["Groups"].split() == [str(alicia.pw_gid)]
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[capabilities], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["PPid"] == str(manager.process.pid)
    assert os.getsid(pid) == pid
    title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    name = re.search(rf"uep\.{manager.id}\.[0-9a-f-]+", title)[0]
    assert title.startswith("Globus Compute Endpoint (")

    log = manager.log_text()
    command = f"globus-compute-endpoint start {name} --die-with-parent"
    assert f"Creating new user endpoint (pid: {pid}) [(alicia, {name}) {command}]" in log
    assert f"Command process successfully forked for 'alicia' (Globus effective identity: {people['alicia'][0]})." in log
    own_log = Path(alicia.pw_dir) / ".globus_compute" / name / "endpoint.log"
    assert own_log.stat().st_uid == alicia.pw_uid and own_log.stat().st_mode & 0o777 == 0o600
    assert own_log.parent.stat().st_mode & 0o777 == 0o700


def test_the_manager_shows_its_id_and_its_title(manager):
    assert f"========== Endpoint Manager begins: {manager.id}" in manager.log_text()
    title = Path(f"/proc/{manager.process.pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    assert title.startswith(f"Globus Compute Endpoint *({manager.id}, mep) [")


def test_the_same_choices_reach_the_same_user_endpoint_and_others_another(service, manager, users, people):
    script = """
        import sys

        def where():
            import os

            return os.getppid()

        found = []
        for config in ({}, {"workers": 2}, {"workers": 2}, {}):
            with executor(sys.argv[1], user_endpoint_config=config) as ex:
                found.append(ex.submit(where).result(timeout=100))
        report(found)
    """
    ((plain, two, two_again, plain_again),) = service.sdk("4.19.0", people["roberto"]).run(script, manager.id)
    assert plain == plain_again and two == two_again and plain != two
    assert len([pid for pid in manager.children() if pid in local_users.processes_of("roberto")]) == 2


@pytest.mark.parametrize(
    ("person", "expected"),
    [
        (
            "ghost",
            "(KeyError)\n  Identity mapped to a local user name, but local user does not exist.\n  Local user name: ghost\n"
            "  Globus effective identity: {id}\n  Globus username: ",
        ),
        (
            "nobody",
            "Identity failed to map to a local user name.  (LookupError) \n  Globus effective identity: {id}\n"
            "  Globus username: ",
        ),
    ],
)
def test_who_has_no_local_user_is_told(service, manager, users, people, person, expected):
    before = set(manager.children())
    text, seconds = service.sdk("4.19.0", people[person]).run(REFUSED, manager.id)
    assert "Request payload failed validation: " + expected.format(id=people[person][0]) in text.replace("\\n", "\n"), text
    assert seconds < 10
    assert set(manager.children()) <= before


def test_many_submits_start_one_user_endpoint_and_people_have_their_own(service, manager, users, people):
    """As many people as there are accounts."""
    script = """
        import sys
        from concurrent.futures import ThreadPoolExecutor

        def where():
            import os

            return [os.getuid(), os.getppid()]

        def submit(_):
            with executor(sys.argv[1], user_endpoint_config={"workers": 4}) as ex:
                return ex.submit(where).result(timeout=100)

        with ThreadPoolExecutor(10) as pool:
            report(sorted(set(map(tuple, pool.map(submit, range(20))))))
    """
    names = ("harper", "tory", "alicia")
    running = {name: service.sdk("4.19.0", people[name]).start(script, manager.id) for name in names}
    for name, client in running.items():
        (found,) = client.finish(170)
        assert [uid for uid, _ in found] == [users[name].pw_uid], found


def test_each_stop_signal_ends_everything(shared_testbed, service, users, people):
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        manager = local_users.OwnManager(shared_testbed, service, local_users.ids(people, "harper"), name=f"mep{int(signum)}")
        shared_testbed.endpoints.append(manager)
        manager.configure()
        manager.start()
        service.sdk("4.19.0", people["harper"]).run(WHO, manager.id)
        (pid,) = manager.children()
        os.kill(manager.process.pid, signum)
        assert manager.process.wait(20) == 0
        assert f"---------- Endpoint Manager ends: {manager.id}" in manager.log_text()
        assert f"Command stopped normally ({pid}) [(harper, uep." in manager.log_text()
        assert not Path(f"/proc/{pid}").exists()
        until(lambda: not manager.online(), "the service shows it offline", 5)


def test_the_death_of_the_manager_ends_every_user_endpoint(shared_testbed, service, users, people):
    manager = local_users.OwnManager(shared_testbed, service, local_users.ids(people, "tory"), name="killed")
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    service.sdk("4.19.0", people["tory"]).run(WHO, manager.id)
    (pid,) = manager.children()
    before = set(local_users.processes_of("tory"))
    assert pid in before
    group = {other for other in before if os.getsid(other) == pid} | {pid}
    manager.kill()
    until(lambda: not any(Path(f"/proc/{other}").exists() for other in group), "its user endpoints are gone, which is promised within 2 s", 10)


class TwoCapabilities(local_users.PersonalManager):
    """It may become others, and is not root."""

    def command(self, *arguments):
        both = "-all,+setuid,+setgid"
        become, *rest = super().command(*arguments)
        return [become, f"--inh-caps={both}", f"--ambient-caps={both}", *rest]


def test_a_manager_that_may_only_become_others_ends_what_it_started(shared_testbed, service, users, people):
    """It lacks the capability to signal others' processes."""
    manager = TwoCapabilities(shared_testbed, service, users["tory"], people["tory"], name="two")
    manager.mapping = local_users.ids(people, "alicia")
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    service.sdk("4.19.0", people["alicia"]).run(WHO, manager.id)
    (pid,) = manager.children()
    assert pid in local_users.processes_of("alicia")
    assert int(status_of(manager.process.pid)["CapEff"], 16) == 0b11000000
    os.kill(manager.process.pid, signal.SIGTERM)
    assert manager.process.wait(20) == 0
    assert f"Command stopped normally ({pid}) [(alicia, uep." in manager.log_text()
