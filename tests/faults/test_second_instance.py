"""Two processes of one endpoint, on two hosts that share its directory: the first stands still (a stalled file system, a
suspended machine) until a second one takes over, and then goes on.

The second host is this one under another name and with another boot id, in namespaces of its own.
"""

import os
import signal

from processes import until
from testbed import Endpoint

OTHER_HOST = """
hostname login02
mount --bind "$0" /proc/sys/kernel/random/boot_id
exec "$@"
"""


class OnAnotherHost(Endpoint):
    """The same directory, seen from another host."""

    def command(self, *arguments):
        boot = self.testbed.directory / "boot_id"
        boot.write_text("00000000-0000-4000-8000-00000000b007\n")
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        return ["unshare", *user, "--mount", "--uts", "sh", "-c", OTHER_HOST, boot, *super().command(*arguments)]


def path(endpoint, name):
    return endpoint.directory / endpoint.name / name


def log(endpoint):
    return path(endpoint, "endpoint.log").read_text(errors="replace")


def age(endpoint, seconds=600):
    """As if the process had not touched its files for so long."""
    for name in ("daemon.pid", "daemon.host"):
        try:
            found = path(endpoint, name).stat()
        except FileNotFoundError:
            continue
        os.utime(path(endpoint, name), (found.st_atime - seconds, found.st_mtime - seconds))


def taken_over(testbed, service, first):
    """Stops `first` and starts another process of the same endpoint on another host."""
    os.kill(first.process.pid, signal.SIGSTOP)
    # The connection ends, as it does when heartbeats are missing for two minutes.
    service.kill()
    service.start()
    age(first)
    second = OnAnotherHost(testbed, service, first.name)
    testbed.endpoints.append(second)
    second.start()
    return second


def test_results_of_a_process_that_stood_still_arrive_once(testbed, gated):
    service = testbed.service()
    first = testbed.endpoint(service, workers=2)
    script = gated.submit(service, first, """
with executor(endpoint) as ex:
    futures = [submitted(ex, "one"), submitted(ex, "two")]
    report("submitted")
    report([outcome(future) for future in futures])
    third = submitted(ex, "three")
    report(outcome(third))
""")
    gated.wait_until_begun("one", "two")
    second = taken_over(testbed, service, first)
    assert first.process.running()
    # The tasks end under the first one's nodes while it stands still.
    gated.open("one", "two", "three")
    os.kill(first.process.pid, signal.SIGCONT)
    assert script.wait_for_report(2) == [["value", "one ran"], ["value", "two ran"]]
    assert first.process.wait() == 255
    assert "another process runs this endpoint now" in log(first)

    # The second has its files still, and works.
    assert script.finish()[2] == ["value", "three ran"]
    gated.assert_begun_once("one", "two", "three")
    pid = int(path(second, "daemon.pid").read_text())
    assert path(second, "daemon.host").read_text().splitlines()[:3:2] == ["login02", str(pid)]
    second.stop()
    assert not path(second, "daemon.pid").exists()
    assert [name.name for name in path(second, "unacked_results").iterdir() if name.stat().st_size] == []


def test_results_in_the_spool_are_sent_by_who_takes_over(testbed, gated):
    service = testbed.service()
    first = testbed.endpoint(service, workers=2)
    script = gated.submit(service, first, """
with executor(endpoint) as ex:
    futures = [submitted(ex, "one"), submitted(ex, "two")]
    report("submitted")
    report([outcome(future) for future in futures])
""")
    gated.wait_until_begun("one", "two")
    service.kill()
    gated.open("one", "two")

    def size():
        return sum(name.stat().st_size for name in path(first, "unacked_results").iterdir())

    until(lambda: size() > 600, "both results lie in the spool")
    second = taken_over(testbed, service, first)
    assert script.finish() == ["submitted", [["value", "one ran"], ["value", "two ran"]]]
    # Awake again long after, it leaves, and takes nothing with it.
    kept = {name: path(second, name).read_bytes() for name in ("daemon.pid", "daemon.host")}
    os.kill(first.process.pid, signal.SIGCONT)
    assert first.process.wait() == 255
    assert {name: path(second, name).read_bytes() for name in kept} == kept
    assert second.online()
    second.stop()
