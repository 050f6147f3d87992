"""Plays every attack of the table (`table.py`)."""

import importlib
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "checks")]

from conformance import is_test  # noqa: E402
from table import ATTACKS  # noqa: E402

for module in sorted(HERE.glob("*.py")):
    if module.stem not in ("table", "conftest") and not module.stem.startswith("test_"):
        importlib.import_module(module.stem)

LONG = (pytest.mark.long, pytest.mark.timeout(900))
PLAYED = [pytest.param(attack, marks=LONG if attack.long else ()) for attack in ATTACKS if attack.play]
ELSEWHERE = [attack for attack in ATTACKS if attack.elsewhere]


@pytest.mark.parametrize("attack", PLAYED, ids=str)
def test_attack(testbed, attack):
    attack.play(testbed)


@pytest.mark.parametrize("attack", ELSEWHERE, ids=str)
def test_what_is_played_elsewhere_exists(attack):
    assert is_test(attack.elsewhere), f"{attack.elsewhere} is no test"
