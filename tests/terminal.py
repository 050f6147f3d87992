"""A real terminal for a program: what a person at a keyboard sees and types."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time


class Terminal:
    """A program on a terminal of its own, 100 columns wide."""

    def __init__(self, command, environment, directory):
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))

        def own_terminal():
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self._process = subprocess.Popen(
            [str(part) for part in command],
            env=environment,
            cwd=directory,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=own_terminal,
        )
        os.close(theirs)
        self._seen = ""

    def read(self, pattern, timeout=60):
        """Waits until the screen shows `pattern` and returns its match."""
        until = time.monotonic() + timeout
        while True:
            found = re.search(pattern, self._seen)
            if found:
                return found
            if not self._more(until):
                raise AssertionError(f"the terminal never showed {pattern!r}:\n{self._seen}")

    def type(self, text):
        """Types a line."""
        os.write(self._ours, f"{text}\n".encode())

    def finish(self, timeout=60):
        """Waits for the end of the program; returns its exit status and all that was on the screen."""
        until = time.monotonic() + timeout
        while self._more(until):
            pass
        status = self._process.wait(max(0.1, until - time.monotonic()))
        os.close(self._ours)
        return status, self._seen

    def _more(self, until):
        # A child that stays behind may hold the terminal open; the program itself has ended then.
        while True:
            ready, _, _ = select.select([self._ours], [], [], 0.1)
            if ready:
                try:
                    part = os.read(self._ours, 65536)
                except OSError:
                    return False
                self._seen += part.decode(errors="replace").replace("\r\n", "\n")
                return bool(part)
            if self._process.poll() is not None:
                return False
            if time.monotonic() > until:
                self._process.kill()
                raise AssertionError(f"the program did not end:\n{self._seen}")
