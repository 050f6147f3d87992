"""The audit log of our manager with high assurance: what each user endpoint does with each task, in its user's name.

The service takes no high assurance yet. So a proxy between manager and service leaves it out of the manager's registration;
everything else is as users have it.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import threading
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import local_users
import pytest
from processes import alive, until

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))

LEFT_OUT = ("high_assurance", "authentication_policy", "subscription_uuid", "subscription_id")

TEMPLATE = """
    {% if pool is defined %}
    engine:
      type: {{ pool }}
      max_workers: 1
    {% else %}
    engine:
      type: GlobusComputeEngine
      max_workers_per_node: 1
      provider:
        type: LocalProvider
        init_blocks: 1
        max_blocks: 1
    {% endif %}
    {% if restricted|default(false) %}
    allowed_functions: []
    {% endif %}
"""

# A line's time, who wrote it, and what.
LINE = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d) uid=(?P<uid>\d+) pid=(?P<pid>\d+) (?P<rest>.*)")
RECORD = re.compile(r"uep=(?P<uep>[0-9a-f-]{36}) fid=(?P<fid>[0-9a-f-]{36}) tid=(?P<tid>[0-9a-f-]{36}) bid=(?P<bid>\d*) (?P<state>.*)")

RUN = """
    import json, sys

    def sleep(seconds):
        import time

        time.sleep(seconds)

    manager, count, config, seconds = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), float(sys.argv[4])
    with executor(manager, user_endpoint_config=config) as ex:
        futures = [ex.submit(sleep, seconds) for _ in range(count)]
        ended = [str(future.exception(timeout=100)) for future in futures]
        report([[future.task_id for future in futures], ended])
"""

FORGE = """
    import sys

    def forge(line):
        import ctypes, os
        from pathlib import Path

        libc = ctypes.CDLL(None, use_errno=True)
        (pidfd_open, pidfd_getfd), written = (434, 438), 0
        for process in Path("/proc").glob("[1-9]*"):
            try:
                if not (process / "cmdline").read_bytes().startswith(b"Globus Compute Endpoint ("):
                    continue
                pipes = [int(entry.name) for entry in (process / "fd").iterdir() if os.readlink(entry).startswith("pipe:")]
            except OSError:
                continue
            for number in pipes:
                copy = libc.syscall(pidfd_getfd, libc.syscall(pidfd_open, int(process.name), 0), number, 0)
                if copy >= 0:
                    written += os.write(copy, line.encode())
        return written

    with executor(sys.argv[1]) as ex:
        report(ex.submit(forge, sys.argv[2]).result(timeout=100))
"""


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


class Proxy(BaseHTTPRequestHandler):
    """Passes requests on to the service, without what it does not take yet."""

    def log_message(self, *_):
        pass

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if body and self.headers.get("Content-Type", "").startswith("application/json"):
            asked = json.loads(body)
            for place in (asked, asked.get("metadata") or {}):
                for name in LEFT_OUT:
                    place.pop(name, None)
            body = json.dumps(asked).encode()
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "content-length")}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.service.http_port, timeout=30)
        connection.request(self.command, self.path, body or None, headers)
        got = connection.getresponse()
        content = got.read()
        self.send_response(got.status)
        for name, value in got.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = answer


class AuditedManager(local_users.OwnManager):
    """A manager with high assurance, and its audit log."""

    def __init__(self, *arguments, proxy, audit_log, **options):
        assured = {
            "high_assurance": True,
            "authentication_policy": "00000000-0000-4000-8000-0000000000a1",
            "subscription_id": "00000000-0000-4000-8000-0000000000a2",
            "audit_log_path": str(audit_log),
        }
        super().__init__(*arguments, template=TEMPLATE, config=assured, **options)
        self.proxy = proxy
        self.audit_log = audit_log

    def environment(self):
        return super().environment() | {"FARCALL_SERVICE_URL": f"http://127.0.0.1:{self.proxy.server_port}"}

    def audited(self):
        """The lines of the audit log, each as a match of `LINE`."""
        lines = self.audit_log.read_text().splitlines()
        found = [LINE.fullmatch(line) for line in lines]
        assert all(found), lines
        return found

    def states(self, task):
        """What is recorded of a task: (uid, pid, block, state), in order."""
        found = [(line, RECORD.fullmatch(line["rest"])) for line in self.audited()]
        return [(int(line["uid"]), int(line["pid"]), it["bid"], it["state"]) for line, it in found if it and it["tid"] == task]


@pytest.fixture(scope="module")
def proxy(service):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.service = service
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def audited_manager(shared_testbed, service, people, proxy, name, audit_log=None):
    manager = AuditedManager(
        shared_testbed,
        service,
        local_users.ids(people, "alicia", "roberto"),
        name=name,
        proxy=proxy,
        audit_log=audit_log or shared_testbed.directory / f"{name}-audit.log",
    )
    shared_testbed.endpoints.append(manager)
    manager.configure()
    return manager


def test_each_task_of_each_person_is_recorded_in_order(shared_testbed, service, users, people, proxy):
    manager = audited_manager(shared_testbed, service, people, proxy, "audited")
    began = datetime.now().astimezone()
    manager.start()

    def start(who, count, seconds=0, **config):
        return service.sdk("4.19.0", people[who]).start(RUN, manager.id, count, json.dumps(config), str(seconds))

    ((ordinary, errors),) = start("alicia", 3).finish()
    assert errors == ["None"] * 3
    (pid,) = manager.children()
    # A hot restart while tasks run: no record is missing.
    client = start("alicia", 20, 0.1)
    until(lambda: len(re.findall(r" RUNNING$", manager.audit_log.read_text(), re.MULTILINE)) > 5, "the tasks run")
    os.kill(manager.process.pid, signal.SIGHUP)
    until(lambda: manager.audit_log.read_text().count("Begin MEP session") == 2, "it begins again")
    ((meanwhile, errors),) = client.finish()
    assert errors == ["None"] * 20 and manager.children() == [pid]
    ordinary += meanwhile
    others = [start("roberto", 1), start("alicia", 1, restricted=True)]
    others += [start("alicia", 1, pool=pool) for pool in ("ProcessPoolEngine", "ThreadPoolEngine")]
    (theirs, (refused,), *pools), (_, (error,), *_) = zip(*(other.finish()[0] for other in others))
    assert "not permitted on endpoint" in error
    pools = [task for (task,) in pools]

    alicia, roberto = users["alicia"].pw_uid, users["roberto"].pw_uid
    until(lambda: all(manager.states(task)[-1:] for task in [*ordinary, *theirs, *pools, refused]), "every task has records")
    until(lambda: all(manager.states(task)[-1][-1] == "EXEC_END" for task in [*ordinary, *theirs, *pools, refused]), "the ends are recorded")
    for task in ordinary:
        whole = [("", "RECEIVED"), ("", "EXEC_START"), ("0", "RUNNING"), ("0", "EXEC_END")]
        assert manager.states(task) == [(alicia, pid, *it) for it in whole]
    assert [(uid, state) for uid, _, _, state in manager.states(theirs[0])] == [
        (roberto, state) for state in ("RECEIVED", "EXEC_START", "RUNNING", "EXEC_END")
    ]
    for task in pools:
        assert [(block, state) for *_, block, state in manager.states(task)] == [("", "RECEIVED"), ("", "EXEC_START"), ("", "EXEC_END")]
    assert [state for *_, state in manager.states(refused)] == [
        "RECEIVED",
        "FAILED - Function not permitted on endpoint",
        "EXEC_END",
    ]

    # A user gets at the pipe of their own user endpoint only as a debugger, and can write no record in another's name.
    forged = f"fid= tid= bid= RUNNING\n{began.isoformat()} uid={roberto} pid=1 uep={manager.id} fid= tid= bid= RECEIVED"
    (written,) = service.sdk("4.19.0", people["alicia"]).run(FORGE, manager.id, forged)
    if written:
        until(lambda: f"uid={roberto} pid=1 " in manager.audit_log.read_text(), "the forged line is recorded")
    for line in manager.audited():
        assert line["pid"] != "1"
        if f"uid={roberto} pid=1 " in line["rest"]:
            assert int(line["uid"]) == alicia

    mep = manager.process.pid
    os.kill(mep, signal.SIGTERM)
    assert manager.process.wait(20) == 0
    first, *others, last = manager.audited()
    own = [line["rest"] for line in others if line["rest"].startswith("eid=")]
    assert own == [f"eid={manager.id} End MEP session [hot restart] .....", f"eid={manager.id} Begin MEP session ====="]
    assert (first["uid"], first["pid"], first["rest"]) == ("0", str(mep), f"eid={manager.id} Begin MEP session =====")
    assert (last["uid"], last["pid"], last["rest"]) == ("0", str(mep), f"eid={manager.id} End MEP session -----")
    times = [datetime.fromisoformat(line["time"]) for line in manager.audited()]
    assert times == sorted(times) and began - timedelta(seconds=1) <= times[0]
    assert all(time.utcoffset() == began.utcoffset() for time in times)
    assert manager.audit_log.stat().st_mode & 0o777 == 0o600


def test_a_log_that_can_not_be_written_ends_everything(shared_testbed, service, users, people, proxy):
    # Not there: it does not start.
    missing = audited_manager(shared_testbed, service, people, proxy, "missing", shared_testbed.directory / "not" / "there" / "audit.log")
    done = missing.run("start", "missing")
    assert done.returncode != 0 and "audit" in done.stdout + done.stderr + missing.log_text(), done

    # The disk is full: no task runs any more. The file was there before, and keeps its mode and its lines.
    disk = shared_testbed.directory / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0755", "farcall-tests", disk], check=True)
    try:
        log = disk / "audit.log"
        log.write_text("an older line\n")
        log.chmod(0o640)
        manager = audited_manager(shared_testbed, service, people, proxy, "full", log)
        manager.start()
        service.sdk("4.19.0", people["alicia"]).run(RUN, manager.id, 1, "{}", "0")
        (uep,) = manager.children()
        assert log.read_text().startswith("an older line\n") and log.stat().st_mode & 0o777 == 0o640
        with open(disk / "rest", "wb", 0) as rest:
            with pytest.raises(OSError):
                while rest.write(b"x" * 4096):
                    pass
        # What is left of the last page of the log.
        client = service.sdk("4.19.0", people["alicia"]).start(RUN, manager.id, 64, "{}", "0")
        manager.process.wait(60)
        assert "audit log" in manager.log_text() and "No space left on device" in manager.log_text()
        until(lambda: not alive(uep), "its user endpoint ends, too", 10)
        client.process.kill()
    finally:
        subprocess.run(["umount", disk], check=False)
