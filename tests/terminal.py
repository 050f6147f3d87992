"""Runs a program at a pseudo-terminal, 100 columns wide: its log is what a person would see, and the test can type."""

import fcntl
import itertools
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading

from processes import Process, until

_count = itertools.count(1)


class Terminal(Process):
    """A program whose terminal is ours, the controlling one of its session: Ctrl-C reaches it."""

    def __init__(self, command, environment, directory, name=None):
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        super().__init__(name or f"terminal-{next(_count)}", command, environment, directory, terminal=theirs)
        os.close(theirs)
        self._reader = threading.Thread(target=self._show, daemon=True)
        self._reader.start()

    def _show(self):
        with open(self.log, "ab") as log:
            while True:
                ready, _, _ = select.select([self._ours], [], [], 0.05)
                if not ready:
                    # A child that stays behind may hold the terminal open; the program itself has ended.
                    if not self.running():
                        return
                    continue
                try:
                    shown = os.read(self._ours, 65536)
                except OSError:
                    # Nobody holds the other end.
                    return
                log.write(shown.replace(b"\r\n", b"\n"))
                log.flush()

    def read(self, pattern, timeout=60):
        """Waits until the screen shows `pattern` and returns its match."""

        def shown():
            match = re.search(pattern, self.output())
            if match is None and not self._reader.is_alive():
                match = re.search(pattern, self.output())
                assert match, f"the terminal never showed {pattern!r}:\n{self.output()}"
            return match

        return until(shown, f"the terminal shows {pattern!r}", timeout)

    def type(self, text, end="\n"):
        """Types a line."""
        os.write(self._ours, f"{text}{end}".encode())

    def interrupt(self):
        """Presses Ctrl-C."""
        self.type("\x03", end="")

    def wait(self, timeout=30):
        status = super().wait(timeout)
        self._reader.join(timeout)
        return status

    def finish(self, timeout=60):
        """Waits for the end of the program; returns its exit status and all that was on the screen."""
        try:
            status = self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the program did not end:\n{self.output()}") from None
        os.close(self._ours)
        return status, self.output()
