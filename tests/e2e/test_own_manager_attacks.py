"""Attacks by users of our manager, from within their tasks, on the manager and on each other."""

import json
import os
import time
from pathlib import Path

import local_users
import pytest
from processes import until

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))

# What a task can do to a process of somebody else, and to root's files: {what: error}.
REACHES = """
    import json, sys

    def reach(processes, files, users):
        import ctypes, os, pwd, signal

        found = {}

        def tried(what, action):
            try:
                action()
                found[what] = "done"
            except OSError as error:
                found[what] = error.errno

        libc = ctypes.CDLL(None, use_errno=True)

        def ptrace(pid):
            if libc.ptrace(16, pid, 0, 0) != 0:  # PTRACE_ATTACH
                raise OSError(ctypes.get_errno(), "ptrace")

        for pid in processes:
            for number in [0, *sorted(signal.valid_signals())]:
                tried(f"signal {number} to {pid}", lambda: os.kill(pid, number))
            for name in ("environ", "mem", "maps", "fd/0", "fd/3"):
                tried(f"/proc/{pid}/{name}", lambda: open(f"/proc/{pid}/{name}", "rb").read(1))
            tried(f"ptrace {pid}", lambda: ptrace(pid))
            tried(f"scheduling of {pid}", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
            tried(f"limits of {pid}", lambda: __import__("resource").prlimit(pid, __import__("resource").RLIMIT_NOFILE, (3, 3)))
        for name in files:
            tried(f"read {name}", lambda: open(name, "rb").read(1))
            tried(f"write {name}", lambda: open(name, "ab").close())
            tried(f"remove {name}", lambda: os.unlink(name))
        for name in users:
            uid = pwd.getpwnam(name).pw_uid
            tried(f"become {name}", lambda: os.setuid(uid))
            tried(f"become {name} and back", lambda: os.setresuid(-1, uid, -1))
            tried(f"groups of {name}", lambda: os.setgroups([pwd.getpwnam(name).pw_gid]))
        return found

    with executor(sys.argv[1]) as ex:
        report(ex.submit(reach, *json.loads(sys.argv[2])).result(timeout=100))
"""

WHERE = """
    import sys

    def where():
        import os

        return os.getppid()

    with executor(sys.argv[1]) as ex:
        report(ex.submit(where).result(timeout=100))
"""

OUTCOME = """
    import json, sys

    def where():
        import os

        return os.getppid()

    with executor(sys.argv[1], user_endpoint_config=json.loads(sys.argv[2])) as ex:
        future = ex.submit(where)
        error = future.exception(timeout=100)
        report(str(error) if error else future.result())
"""

KILLS_ITS_OWN = """
    import sys

    def kill_user_endpoint(manager):
        import os, signal, time

        # Up the process tree, to the child of the manager.
        pid = os.getpid()
        while True:
            with open(f"/proc/{pid}/stat") as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            if parent == manager:
                break
            pid = parent
        os.kill(pid, signal.SIGKILL)
        time.sleep(60)

    with executor(sys.argv[1]) as ex:
        report(str(ex.submit(kill_user_endpoint, int(sys.argv[2])).exception(timeout=100)))
"""


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


@pytest.fixture(scope="module")
def manager(shared_testbed, service, users, people):
    manager = local_users.OwnManager(shared_testbed, service, local_users.ids(people, "alicia", "roberto"))
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    return manager


@pytest.fixture
def run(service, manager, people):
    """Runs a script as this person, and returns what it reports."""

    def run(person, script, *arguments):
        (found,) = service.sdk("4.19.0", people[person]).run(script, manager.id, *arguments)
        return found

    return run


def user_endpoint(manager, person):
    (pid,) = [pid for pid in manager.children() if pid in local_users.processes_of(person)]
    return pid


def test_a_task_reaches_neither_the_manager_nor_another_user(manager, users, run):
    before = run("roberto", WHERE)
    theirs = user_endpoint(manager, "roberto")
    files = [str(manager.home / name) for name in ("config.yaml", "mapping.json", "endpoint.log", "endpoint.json", "daemon.pid")]
    files.append(str(next(Path(users["roberto"].pw_dir).glob(".globus_compute/uep.*/endpoint.log"))))
    found = run("alicia", REACHES, json.dumps([[manager.process.pid, theirs], files, ["root", "roberto"]]))
    # EPERM and EACCES.
    assert {what: error for what, error in found.items() if error not in (1, 13)} == {}
    assert len(found) > 150
    assert manager.process.running()
    assert user_endpoint(manager, "roberto") == theirs
    assert run("roberto", WHERE) == before, "the same node still runs"


def test_a_task_that_kills_its_own_user_endpoint_harms_nobody_else(manager, run):
    before, own = run("roberto", WHERE), run("alicia", WHERE)
    killed = user_endpoint(manager, "alicia")
    text = run("alicia", KILLS_ITS_OWN, manager.process.pid)
    assert "Lost" in text or "signal 9" in text, text
    manager.wait_for_log(rf"Command terminated by signal: 9 \({killed}\) \[\(alicia, uep\.")
    assert run("alicia", WHERE) != own, "the next task has a new user endpoint"
    assert user_endpoint(manager, "alicia") != killed
    assert run("roberto", WHERE) == before


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_user_endpoint_that_is_killed_at_any_moment_of_its_start_keeps_nobody_waiting(service, manager, people, run):
    """Whoever waits gets the result of the next one, or reads what happened; and the next task runs."""
    before = run("roberto", WHERE)
    for number, moment in enumerate((0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6), 2):
        known = set(manager.children())
        options = json.dumps({"workers": number})
        client = service.sdk("4.19.0", people["alicia"]).start(OUTCOME, manager.id, options)
        (pid,) = until(lambda: set(manager.children()) - known, "it is started", 60)
        time.sleep(moment)
        os.kill(pid, 9)
        (outcome,) = client.finish(120)
        assert isinstance(outcome, int) or "unknown failure starting" in outcome or "Lost" in outcome or "signal 9" in outcome, outcome
        assert isinstance(run("alicia", OUTCOME, options), int), f"after {moment} s"
        assert manager.process.running()
    assert run("roberto", WHERE) == before
