"""Starts our broker: the example `serve` of the crate `broker`."""

import os

from processes import Process
from testbed import binary

from rabbitmq import USERS

MEGABYTE = 1 << 20


class Ours:
    """One broker. `kept` names durable queues with a sink and a backing; `options` are further flags of the example."""

    name = "ours"

    def __init__(self, directory, kept=(), **options):
        self.directory = directory
        self.port = 0
        self._flags = []
        for user, rule in USERS.items():
            may = {".*": "all", None: "nothing"}.get(rule, str(rule).lstrip("^"))
            self._flags += ["--user", f"{user}:{user}:{may}"]
        for queue in kept:
            self._flags += ["--kept", queue]
        for flag, value in options.items():
            self._flags += [f"--{flag.replace('_', '-')}", str(value)]
        self.start()

    def start(self):
        """Starts it: the first time on a free port, later on the same port."""
        environment = {"PATH": os.environ["PATH"], "RUST_BACKTRACE": "1"}
        command = [binary("examples/serve"), "--listen", f"127.0.0.1:{self.port}", *self._flags]
        self._process = Process("ours", command, environment, self.directory)
        self.port = int(self._process.wait_for(r"^listening on 127\.0\.0\.1:(\d+)$")[1])

    def restart(self):
        """Kills it as a crash would, and starts it again on the same port."""
        self._process.kill()
        self.start()

    def running(self):
        return self._process.running()

    def output(self):
        return self._process.output()

    def resident(self):
        """The bytes of memory it has now, and the most it has had."""
        fields = dict(line.split(":", 1) for line in open(f"/proc/{self._process.pid}/status") if ":" in line)
        return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))

    def open_files(self):
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def stop(self):
        """Stops it, and checks its exit status."""
        if self._process.running():
            status = self._process.stop()
            assert status == 0, f"our broker exited with status {status}:\n{self.output()}"
