"""The table of attacks: who attacks, what they try, and the function that tries it.

Each module beside this one holds the attacks on one part of the product. A row is a function that takes a testbed, plays
the attack with real programs and asserts what holds: what the attacker gets, and what it costs others. A new attack is a
new row; `docs/security.md` names rows as `tests/attacks/MODULE.py::FUNCTION`.

An attack that can only be counted inside a program (rows read by a statement, say) is a Rust test; its row names it with
`played_elsewhere`, so that the table stays whole.
"""

from dataclasses import dataclass
from typing import Callable, Optional

ATTACKS = []


@dataclass
class Attack:
    attacker: str
    tries: str
    # Plays the attack; absent where another test does.
    play: Optional[Callable] = None
    # That test, as `path::name`.
    elsewhere: Optional[str] = None
    # At a size that takes minutes: for `make test-long`.
    long: bool = False

    def __str__(self):
        return f"{self.attacker}: {self.tries}"


def attack(attacker, tries, long=False):
    """Marks a function `play(testbed)` as a row of the table; a `long` one takes minutes."""

    def row(play):
        ATTACKS.append(Attack(attacker, tries, play=play, long=long))
        return play

    return row


def played_elsewhere(attacker, tries, test):
    """A row that the test `test` (`path::name`) plays."""
    ATTACKS.append(Attack(attacker, tries, elsewhere=test))
