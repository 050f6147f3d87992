"""What `bench/pairs` makes of two builds, played by scripts that print measurements."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent.parent / "bench/pairs"
PRINTS = """#!/bin/sh
echo something else
echo '{{"note": "not a number"}}'
echo '{{"subject": "s", "measure": "rate", "value": {rate}, "unit": "/s"}}'
echo '{{"subject": "s", "measure": "time", "value": {time}, "unit": "ms"}}'
echo '{{"subject": "s", "measure": "count", "value": {rate}, "unit": ""}}'
exit {status}
"""


class Pairs(unittest.TestCase):
    def compare(self, new, status=0):
        """Compares builds whose rate and time are 100 with these; returns the exit status and the lines printed."""
        with tempfile.TemporaryDirectory() as directory:
            builds = {"old": (100, 100, 0), "new": (*new, status)}
            for build, (rate, time, status) in builds.items():
                program = Path(directory, build, "bench")
                program.parent.mkdir()
                program.write_text(PRINTS.format(rate=rate, time=time, status=status))
                program.chmod(0o755)
            paths = [Path(directory, build) for build in builds]
            command = [sys.executable, PROGRAM, *paths, "nodes", "--pairs", "2"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            return done.returncode, done.stdout.splitlines()

    def test_a_slower_rate_is_worse(self):
        status, lines = self.compare((90, 100))
        self.assertEqual(status, 1)
        self.assertIn("| s | rate | 100 /s | 90 /s | 0.900 | worse |", lines)
        self.assertEqual(lines[-2:], ["1 measurements are more than 5% worse", "nodes: s: rate: 100 /s -> 90 /s"])

    def test_a_longer_time_is_worse(self):
        status, lines = self.compare((100, 110))
        self.assertEqual((status, lines[-1]), (1, "nodes: s: time: 100 ms -> 110 ms"))

    def test_better_or_nearly_the_same_is_not(self):
        for new in ((200, 50), (96, 104), (100, 100)):
            status, lines = self.compare(new)
            self.assertEqual((status, lines[-1]), (0, "0 measurements are more than 5% worse"))

    def test_a_program_that_fails_ends_it(self):
        status, lines = self.compare((100, 100), status=3)
        self.assertEqual(status, 1)
        self.assertNotIn("0 measurements are more than 5% worse", lines)


if __name__ == "__main__":
    unittest.main()
