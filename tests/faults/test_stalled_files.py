"""The file system of an endpoint's directory stands still for longer than anybody waits for a heartbeat. Heartbeats go on,
what runs runs on, and what needs the files goes on once they are back."""

import os
import time
from pathlib import Path

import environments
from testbed import Endpoint

# In seconds: between two heartbeats to the service, which calls an endpoint offline after 15 s without one.
PERIOD = 5
# A node that has heard nothing of the endpoint for so long ends with its tasks, and the other way round.
THRESHOLD = 3
STALL = 18
ENGINE = {
    "type": "GlobusComputeEngine",
    "max_workers_per_node": 2,
    "heartbeat_period": 1,
    "heartbeat_threshold": THRESHOLD,
    "provider": {"type": "LocalProvider", "init_blocks": 1, "min_blocks": 0, "max_blocks": 1},
}


class OnAStallingFileSystem(Endpoint):
    """Its files are reached through a file system that stands still while `flag` exists."""

    def __init__(self, testbed, service, name, **options):
        super().__init__(testbed, service, name, **options)
        self.flag = testbed.directory / "stalled"
        self.mount = testbed.directory / "mounted"
        for directory in (self.directory, self.mount):
            directory.mkdir(exist_ok=True)

    def command(self, *arguments):
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        stalling = [environments.python("file-systems"), Path(__file__).with_name("stalling_file_system.py")]
        where = [self.directory, self.mount, self.flag, "--"]
        return ["unshare", *user, "--mount", *stalling, *where, self.program, "-c", self.mount, *arguments]


def test_a_worker_that_can_not_be_started_meanwhile_costs_nobody_else(testbed, gated):
    service = testbed.service()
    engine = dict(ENGINE)
    endpoint = OnAStallingFileSystem(testbed, service, "endpoint", engine=engine)
    # The interpreter lies there, too: whoever executes it waits.
    engine["python"] = str(endpoint.mount / "python")
    interpreter = endpoint.directory / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {endpoint.python} "$@"\n')
    interpreter.chmod(0o755)
    testbed.endpoints.append(endpoint)
    endpoint.configure()
    endpoint.start()
    script = gated.submit(service, endpoint, """
import os

def leaves(marks, name):
    import os, pathlib, time
    pathlib.Path(marks, name).write_text(f"{os.getpid()}\\n")
    while not pathlib.Path(marks, name + ".open").exists():
        time.sleep(0.02)
    os._exit(1)

with executor(endpoint) as ex:
    running, leaving = submitted(ex, "running"), ex.submit(leaves, marks, "leaving")
    report("submitted")
    # It would take the second slot if that were ready only now.
    while not os.path.exists(os.path.join(marks, "leaving")):
        time.sleep(0.02)
    after = submitted(ex, "after")
    report([outcome(future) for future in (leaving, running, after)])
""")
    gated.wait_until_begun("running", "leaving")
    endpoint.flag.touch()
    gated.open("leaving")
    # Its slot gets another worker at once, and that one's interpreter can't be read.
    time.sleep(3 * THRESHOLD)
    gated.open("running", "after")
    endpoint.flag.unlink()
    lost, running, after = script.wait_for_report(2)
    assert lost[0] == "error" and "WorkerLost" in lost[2]
    assert (running, after) == (["value", "running ran"], ["value", "after ran"])
    script.finish()
    gated.assert_begun_once("running")


def test_what_runs_survives_a_file_system_that_stands_still(testbed, gated):
    service = testbed.service()
    endpoint = OnAStallingFileSystem(testbed, service, "endpoint", engine=ENGINE, config={"heartbeat_period": PERIOD})
    testbed.endpoints.append(endpoint)
    endpoint.configure()
    endpoint.start()
    script = gated.submit(service, endpoint, """
import os

def talks(marks, name):
    import os, pathlib, time
    pathlib.Path(marks, name).write_text(f"{os.getpid()}\\n")
    while not pathlib.Path(marks, name + ".open").exists():
        time.sleep(0.02)
    # More than any pipe holds, through the node into a log that stands still.
    for _ in range(4000):
        print("words " * 20, flush=True)
    return name + " ran"

with executor(endpoint) as ex:
    running, talking = submitted(ex, "running"), ex.submit(talks, marks, "talking")
    report("submitted")
    while not os.path.exists(os.path.join(marks, "stalled")):
        time.sleep(0.02)
    waiting = submitted(ex, "waiting")
    report("submitted")
    report([outcome(future) for future in (running, talking, waiting)])
""")
    gated.wait_until_begun("running", "talking")
    endpoint.flag.touch()
    (gated.marks / "stalled").touch()
    gated.open("waiting", "talking")
    script.wait_for_report(2)
    end = time.monotonic() + STALL
    while time.monotonic() < end:
        assert endpoint.online(), "the service hears of it"
        time.sleep(0.5)
    gated.open("running")
    endpoint.flag.unlink()
    assert script.wait_for_report(3) == [["value", f"{name} ran"] for name in ("running", "talking", "waiting")]
    script.finish()
    gated.assert_begun_once("running", "talking", "waiting")
