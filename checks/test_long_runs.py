"""What `long_runs.py` lets stand in the record of the long tests."""

import unittest
from collections import Counter

import long_runs

GOOD = {"commit": "0" * 40, "dirty": False, "day": "2026-11-30", "seconds": 9, "status": 0, "closing": "7 passed in 9.00s"}


class Records(unittest.TestCase):
    def test_what_a_run_writes(self):
        for entry in (GOOD, GOOD | {"status": 1, "closing": "1 failed, 6 passed in 9.00s", "dirty": True}):
            self.assertEqual(list(long_runs.complaints({"chaos-1": entry})), [])

    def test_anything_else(self):
        for part, entry in (
            ("chaos-0", GOOD),
            ("chaos-1", GOOD | {"commit": "HEAD"}),
            ("chaos-1", GOOD | {"dirty": "no"}),
            ("chaos-1", GOOD | {"seconds": 0}),
            ("chaos-1", GOOD | {"closing": "1 failed in 9.00s"}),
            ("chaos-1", GOOD | {"passed": 7}),
            ("chaos-1", {key: value for key, value in GOOD.items() if key != "day"}),
        ):
            self.assertEqual(len(list(long_runs.complaints({part: entry}))), 1, (part, entry))

    def test_each_module_of_the_tests_has_a_name_of_its_own(self):
        """A long part collects every directory of the tests in one Python, which imports a name once."""
        directories = [path.parent for path in (long_runs.long.ROOT / "tests").glob("*/test_*.py")]
        names = Counter(path.name for directory in set(directories) for path in directory.glob("*.py"))
        names.pop("conftest.py", None)
        self.assertEqual([name for name, count in names.items() if count > 1], [])


if __name__ == "__main__":
    unittest.main()
