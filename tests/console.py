"""A program under a pseudo-terminal that runs beside others, as a party of a scene: its log is what it shows."""

import os
import pty
import threading

from processes import Process


class Console(Process):
    """A program whose terminal is ours. Its log holds what it has shown."""

    def __init__(self, name, command, environment, directory):
        self._master, self._slave = pty.openpty()
        super().__init__(name, command, environment, directory, terminal=self._slave)
        os.close(self._slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with open(self.log, "ab") as log:
            while True:
                try:
                    shown = os.read(self._master, 65536)
                except OSError:
                    # The other end is closed: the program has ended.
                    return
                if not shown:
                    return
                log.write(shown.replace(b"\r\n", b"\n"))
                log.flush()

    def say(self, text):
        """Types a line."""
        os.write(self._master, text.encode() + b"\n")

    def wait(self, timeout=30):
        status = super().wait(timeout)
        self._reader.join(5)
        return status
