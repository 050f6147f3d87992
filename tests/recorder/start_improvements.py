"""Where our manager does something else with a start command than upstream's on purpose: for each command why, and both answers.

All of it is tested: what the managers do must differ, and be what is written here. `CONFORMANCE.md` holds the table for
readers.
"""

from typing import NamedTuple

from improvements import BOTH


class Improvement(NamedTuple):
    """For one command: with `ours` in the place of `upstream`, what upstream's does is what ours does. `upstream` is `None`: it
    does nothing."""

    reason: str
    upstream: str | None
    ours: str
    releases: tuple = BOTH
    # Further pairs of upstream's and ours.
    also: tuple = ()


class Everywhere(NamedTuple):
    """In each start: names that only one of both has, ours or upstream's, in a part of what is recorded."""

    reason: str
    part: str
    names: tuple
    only_ours: bool
    releases: tuple


CODES = "The exit codes of a launch are those of 3.8.0 in every era; 4.19.0 counts its stages anew."
CODE = ("exit code: 77; (", "exit code: 78; (", ("4.19.0",))
IMPROVEMENTS = {
    "no timestamp": Improvement(
        "A command without a timestamp is refused with a notice; it ends upstream's 3.8.0, and 4.19.0 says nothing.",
        None, "Command has no timestamp.",
    ),
    "options of every kind": Improvement(
        "A list that a template prints is JSON: its texts arrive as they were sent, and can't become structure.",
        """parts: ['"a\\', \\'b"', 5, True, {'k: v': 1.5}]""", """parts: ["a', 'b", 5, true, {"k: v": 1.5}]""",
    ),
    "further arguments": Improvement(
        "Further arguments of a command come last, as with 3.8.0.",
        '"--more", "1", "--die-with-parent"', '"--die-with-parent", "--more", "1"', ("4.19.0",),
    ),
    "no runtime": Improvement(
        "Without a runtime in the command, its members are undefined in the template, and the user endpoint is started as 3.8.0 "
        "does.",
        "runtime: None", "runtime: unknown", ("4.19.0",),
        (('["_start-user-endpoint", ', '["start", '), ('"], "below', '", "--die-with-parent"], "below')),
    ),
    "an option that the schema refuses": Improvement(CODES, *CODE),
    "a reserved word": Improvement(CODES, *CODE),
    "a reserved word of 3.8": Improvement(CODES, *CODE),
}
EVERYWHERE = [
    Everywhere(
        "User endpoints are given renewed credentials while they run, as by 4.16 and later; 3.8.0 ignores both members.",
        "document", ("mem_fd", "enckey"), True, ("3.8.0",),
    ),
    Everywhere(
        "The variables of 4.x are not set for user endpoints of a manager of 3.8's kind.",
        "environment",
        ("GC_USER_SDK_VERSION", "GLOBUS_COMPUTE_ENDPOINT_DIR", "GLOBUS_COMPUTE_ENDPOINT_NAME", "GLOBUS_COMPUTE_LOG_PATH"),
        False, ("4.19.0",),
    ),
    Everywhere("`PWD` is set, as by 3.8.0.", "environment", ("PWD",), True, ("4.19.0",)),
]
