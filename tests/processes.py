"""Starts programs for tests: each in a process group of its own, with its output in a file, ended by its own id.

A mark in the environment finds every process that a program left behind.
"""

import fcntl
import os
import re
import signal
import socket
import subprocess
import termios
import time
from pathlib import Path

MARK = "FARCALL_TEST_TESTBED"


class Process:
    """A running program."""

    def __init__(self, name, command, environment, directory, stdin=None, terminal=None):
        self.name = name
        self.command = [str(part) for part in command]
        self.log = Path(directory) / f"{name}.log"
        with open(self.log, "ab") as log:
            # What this run writes begins here: an earlier run of the same name shares the file.
            self._from = log.tell()
            self._popen = subprocess.Popen(
                self.command,
                env=environment,
                cwd=directory,
                stdin=terminal or (subprocess.DEVNULL if stdin is None else subprocess.PIPE),
                stdout=terminal or log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # The terminal of the new session.
                preexec_fn=terminal and (lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
            )
        if stdin is not None:
            self._popen.stdin.write(stdin.encode())
            self._popen.stdin.close()

    @property
    def pid(self):
        return self._popen.pid

    def running(self):
        return self._popen.poll() is None

    def output(self):
        """What this run has written so far."""
        with open(self.log, "rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace")

    def wait_for(self, pattern, timeout=30):
        """Waits until the output holds `pattern` and returns the match."""

        def found():
            match = re.search(pattern, self.output(), re.MULTILINE)
            if match is None and not self.running():
                raise AssertionError(f"{self.name} ended with {self._popen.returncode} without saying {pattern!r}:\n{self.output()}")
            return match

        return until(found, f"{self.name} says {pattern!r}", timeout)

    def wait(self, timeout=30):
        """Waits for the end and returns the exit status."""
        return self._popen.wait(timeout)

    def kill(self):
        """SIGKILL to this one process, as a crash would end it: what it started has to notice by itself."""
        if self.running():
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def stop(self, grace=20):
        """Asks it to stop, waits, and returns the exit status; kills it and fails when it takes longer."""
        if self.running():
            os.kill(self.pid, signal.SIGTERM)
        try:
            return self.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not stop within {grace} s:\n{self.output()}") from None


def until(condition, what, timeout=30):
    """Calls `condition` until it returns something true, and returns that."""
    end = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.02)


def alive(pid):
    """Whether the process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def marked(mark):
    """The living processes whose environment carries the testbed's mark: pid -> command line."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0") and alive(int(entry.name)):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def free_ports(count):
    """Ports of the loopback interface that are free."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [it.getsockname()[1] for it in sockets]
    for it in sockets:
        it.close()
    return ports


def listening(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False
