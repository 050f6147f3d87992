"""The stages of CI have budgets that sum to 34 minutes at most."""

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAGE = re.compile(r'(?:checks/stage|\$\(STAGE\)) (?:"[^"]+"|\w+) (\d+) ')


class Budgets(unittest.TestCase):
    def test_their_sum(self):
        budgets = [int(minutes) for file in ("Makefile", ".ci/run") for minutes in STAGE.findall((ROOT / file).read_text())]
        self.assertEqual(len(budgets), 6, budgets)
        self.assertLessEqual(sum(budgets), 34, budgets)


if __name__ == "__main__":
    unittest.main()
