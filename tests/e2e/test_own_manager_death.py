"""Our manager is killed while its user endpoints are busy: nothing outlives it, and nothing is lost. What its processes show others."""

import os
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import local_users
import pytest
from processes import alive, until
from testbed import binary

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))

SCRIPTS = local_users.TEMPLATE + """
    shutdown_grace: 3600
    endpoint_setup: echo setup >> ~/scripts
    endpoint_teardown: echo teardown >> ~/scripts
"""

# One task that would run for an hour, with a process in a session of its own, and one that ends when it is told to.
TASKS = """
    import sys

    def busy():
        import pathlib, subprocess, time

        child = subprocess.Popen(["setsid", "sleep", "3600"])
        pathlib.Path("~/busy").expanduser().write_text(str(child.pid))
        time.sleep(3600)

    def done():
        import pathlib, time

        home = pathlib.Path.home()
        (home / "waits").touch()
        while not (home / "go").exists():
            time.sleep(0.02)
        return "done"

    it = Client()
    batch = it.create_batch(user_endpoint_config={"workers": 2})
    functions = [it.register_function(globals()[name]) for name in sys.argv[2:]]
    for function in functions:
        batch.add(function)
    tasks = it.batch_run(sys.argv[1], batch)["tasks"]
    report([tasks[function][0] for function in functions])
"""

AFTER = """
    import sys

    def one():
        return 1

    with executor(sys.argv[1], user_endpoint_config={"workers": 2}) as ex:
        report(ex.submit(one).result(timeout=100))
    it = Client()
    for task in sys.argv[2:]:
        while True:
            try:
                report(it.get_result(task))
            except Exception as error:
                if "pending" in str(error).lower() or type(error).__name__ == "TaskPending":
                    continue
                report(str(error))
            break
"""

WHO = """
    import sys

    def who():
        import os

        refused = []
        for become in (os.setuid, os.setgid, os.seteuid):
            try:
                become(0)
            except PermissionError:
                refused.append(become.__name__)
        return [refused, os.getppid(), dict(os.environ)]

    with executor(sys.argv[1]) as ex:
        report(ex.submit(who).result(timeout=100))
"""


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


def own_manager(shared_testbed, service, people, names, **options):
    manager = local_users.OwnManager(shared_testbed, service, local_users.ids(people, *names), **options)
    shared_testbed.endpoints.append(manager)
    manager.configure()
    return manager


def running_as(name):
    return [pid for pid in local_users.processes_of(name) if alive(pid)]


def as_user(account, *command):
    """Runs a command as a local user. Returns its exit status and what it printed."""
    become = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups", "--reset-env"]
    done = subprocess.run([*become, *map(str, command)], cwd="/", capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout + done.stderr


def wait_until_kept(manager, home, task):
    """Waits until the result of a task is on the disk of the only user endpoint. Returns its directory."""
    (directory,) = (home / ".globus_compute").glob(f"uep.{manager.id}.*")
    spool = directory / "unacked_results"
    until(lambda: any(task.encode() in path.read_bytes() for path in spool.iterdir()), "the result is kept")
    return directory


def test_nothing_outlives_a_killed_manager_and_finished_results_come_later(shared_testbed, service, users, people):
    manager = own_manager(shared_testbed, service, people, ["alicia"], name="killed-busy", template=SCRIPTS)
    manager.start()
    home = Path(users["alicia"].pw_dir)
    sdk = service.sdk("4.19.0", people["alicia"])
    ((busy, done),) = sdk.run(TASKS, manager.id, "busy", "done")
    until(lambda: (home / "waits").exists() and (home / "busy").exists(), "both tasks run", 60)
    detached = int((home / "busy").read_text())
    (uep,) = manager.children()
    everything = local_users.processes_of("alicia")
    assert {uep, detached} < set(everything)
    sessions = {os.getsid(pid) for pid in everything}
    assert len(sessions) > 2, "workers and what they start have sessions of their own"

    # Its result can't be delivered any more.
    service.stop()
    (home / "go").touch()
    directory = wait_until_kept(manager, home, done)
    manager.kill()
    until(lambda: not any(map(alive, everything)), "everything is gone, which is promised within 2 s", 10)
    assert running_as("alicia") == []
    assert (home / "scripts").read_text() == "setup\n", "there was no time for endpoint_teardown"

    # Her command line by hand: without the manager's document there is nothing to run.
    program = binary("globus-compute-endpoint")
    status, text = as_user(users["alicia"], program, "start", directory.name, "--die-with-parent")
    assert status != 0, text
    assert running_as("alicia") == [] and (home / "scripts").read_text() == "setup\n"

    service.start()
    manager.start()
    one, first, second = sdk.run(AFTER, manager.id, done, busy)
    assert (one, first) == (1, "done")
    assert "Task failure due to loss of" in second, second
    assert (home / "scripts").read_text() == "setup\nteardown\nsetup\n"


def test_finished_results_come_after_an_orderly_stop_too(shared_testbed, service, users, people):
    manager = own_manager(shared_testbed, service, people, ["roberto"], name="stopped-full")
    manager.start()
    home = Path(users["roberto"].pw_dir)
    sdk = service.sdk("4.19.0", people["roberto"])
    ((done,),) = sdk.run(TASKS, manager.id, "done")
    until((home / "waits").exists, "the task runs", 60)
    service.stop()
    (home / "go").touch()
    wait_until_kept(manager, home, done)
    os.kill(manager.process.pid, signal.SIGTERM)
    assert manager.process.wait(20) == 0
    assert running_as("roberto") == []
    service.start()
    manager.start()
    assert sdk.run(AFTER, manager.id, done) == [1, "done"]


def test_a_manager_runs_nothing_and_its_user_endpoints_run_as_their_users_alone(shared_testbed, service, users, people):
    def consumers():
        text = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{service.origin()}/metrics").read().decode()
        return int(re.search(r"^farcall_broker_consumers (\d+)", text, re.MULTILINE)[1])

    before = consumers()
    manager = own_manager(shared_testbed, service, people, ["alicia", "roberto"], name="watched")
    manager.start()
    assert manager.children() == []
    until(lambda: consumers() == before + 1, "it consumes one queue, that of its commands")

    ((refused, parent, environment),) = service.sdk("4.19.0", people["alicia"]).run(WHO, manager.id)
    assert refused == ["setuid", "setgid", "seteuid"]
    (uep,) = manager.children()
    alicia, roberto = users["alicia"], users["roberto"]

    # The real process, not a stand-in: no privilege, its own session, nothing of root's.
    process = Path(f"/proc/{uep}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) == {str(alicia.pw_uid)} and set(status["Gid"].split()) == {str(alicia.pw_gid)}
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[capabilities], 16) == 0, capabilities
    assert status["NoNewPrivs"] == "1" and os.getsid(uep) == os.getpgid(uep) == uep
    own = dict(item.split("=", 1) for item in (process / "environ").read_text().split("\0") if item)
    assert set(own) == {"PATH", "HOME", "USER", "PWD", "CWD"}, own
    assert (own["HOME"], own["USER"]) == (alicia.pw_dir, "alicia")
    uep_home = next((Path(alicia.pw_dir) / ".globus_compute").glob(f"uep.{manager.id}.*"))
    opened = [os.readlink(entry) for entry in (process / "fd").iterdir()]
    for name in opened:
        mine = name.startswith((f"{uep_home}/", "socket:", "anon_inode:", "/memfd:", "/dev/null"))
        assert mine or name.startswith("pipe:"), opened
    # A pipe that somebody else holds, too, would lead out of the user endpoint.
    theirs = {os.readlink(entry) for entry in Path(f"/proc/{manager.process.pid}/fd").iterdir()}
    assert not {name for name in opened if name.startswith("pipe:")} & theirs

    # Their memory is the only place of the broker's passwords.
    secrets = set()
    for pid in (manager.process.pid, uep):
        found = passwords(pid)
        assert found, "each process has its own"
        secrets |= found
    shown = [path for entry in Path("/proc").iterdir() if entry.name.isdigit() for path in (entry / "cmdline", entry / "environ")]
    files = [path for top in (manager.home, uep_home) for path in top.rglob("*") if path.is_file() and path.stat().st_mode & 0o004]
    assert files, "some files are open to others"
    for path in [*shown, *files]:
        try:
            content = path.read_bytes()
        except OSError:
            continue
        assert not any(secret.encode() in content for secret in secrets), path
    assert not any(secret in " ".join(environment.values()) for secret in secrets)

    # Alicia can't read the manager's, roberto neither's, root both.
    for account, place in ((alicia, manager.home), (roberto, manager.home), (roberto, uep_home)):
        status, text = as_user(account, "cat", place / "endpoint.log")
        assert status != 0 and "Permission denied" in text, (account.pw_name, place, text)
    for account, pid in ((alicia, manager.process.pid), (roberto, uep)):
        for what in ("fd/0", "environ", "mem"):
            status, text = as_user(account, "head", "-c", "1", f"/proc/{pid}/{what}")
            assert status != 0 and "Permission denied" in text, (account.pw_name, what, text)
    assert "the endpoint runs" in (uep_home / "endpoint.log").read_text()


def passwords(pid):
    """The passwords in the broker's addresses that a process has in its memory."""
    found = set()
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            addresses, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            begin, end = (int(part, 16) for part in addresses.split("-"))
            memory.seek(begin)
            try:
                content = memory.read(end - begin)
            except OSError:
                continue
            found |= {match[1].decode() for match in re.finditer(rb"amqps?://[\w.-]+:([\w-]{20,})@", content)}
    return found
