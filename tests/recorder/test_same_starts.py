"""Our manager and upstream's, of both releases, are given the same start commands: the notices are the same, and the programs
that are started are given the same, but for the listed improvements.

Nothing is recorded beforehand: all of them run here, under a RabbitMQ, with real accounts.
"""

import copy
import json
import tempfile
from pathlib import Path

import local_users
import pytest
from improvements import BOTH
from rabbitmq import RabbitMQ
from start_commands import COMMANDS, SILENT, UNTIMED, Recorder, prepared
from start_improvements import EVERYWHERE, IMPROVEMENTS

CONFORMANCE = Path(__file__).resolve().parents[2] / "CONFORMANCE.md"


def recordings(testbed):
    """What each manager does with the commands, one after the other under one broker."""
    service, broker, found = testbed.service(), RabbitMQ(), {}
    try:
        with local_users.LocalUsers() as users, tempfile.TemporaryDirectory(dir=local_users.PLACE) as programs:
            Path(programs).chmod(0o755)
            recorder = Recorder(service, broker)
            ours = local_users.OwnManager(testbed, service, {}, name="ours")
            upstreams = (local_users.UpstreamsManager(testbed, service, {}, release) for release in BOTH)
            for name, manager in zip(("ours", *BOTH), (ours, *upstreams)):
                testbed.endpoints.append(manager)
                subject = prepared(manager, recorder, Path(programs))
                found[name] = recorder.record(subject, Path(users["alicia"].pw_dir))
            recorder.close()
    finally:
        broker.stop()
    return found


def without_what_one_has(theirs, mine, release):
    """Both records of a start without what only one of them has on purpose, which must be so."""
    theirs, mine = copy.deepcopy((theirs, mine))
    for one in EVERYWHERE:
        if release in one.releases:
            has, lacks = (mine, theirs) if one.only_ours else (theirs, mine)
            names = set(one.names) & set(has[one.part])
            assert names and not set(one.names) & set(lacks[one.part]), f"no improvement any more: {one.reason}"
            for name in names:
                del has[one.part][name]
    return theirs, mine


def difference(name, theirs, mine, release):
    """What differs and is not written down; or what is written down and does not differ. `None`: all is well."""
    if [kind for kind, _ in theirs + mine] == ["started"] * 2:
        (_, theirs), (_, mine) = theirs[0], mine[0]
        theirs, mine = without_what_one_has(theirs, mine, release)
    improvement = IMPROVEMENTS.get(name)
    if improvement is None or release not in improvement.releases:
        return None if theirs == mine else f"- {theirs}\n+ {mine}"
    if theirs == mine:
        return f"no improvement any more: {improvement.reason}"
    theirs, mine = text(theirs), text(mine)
    if improvement.upstream is None:
        right = theirs == "" and improvement.ours in mine
    else:
        # Nothing else differs.
        for upstream, ours in ((improvement.upstream, improvement.ours), *improvement.also):
            theirs = theirs.replace(upstream, ours)
        right = theirs == mine
    return None if right else f"not what is written down: {theirs}\n{mine}"


def text(record):
    """A record as one text, with a configuration as it is."""
    if isinstance(record, list):
        return "\n".join(map(str, record))
    document = record["document"]
    rest = record | {"document": {name: value for name, value in document.items() if name != "config"}}
    return document["config"] + "\n" + json.dumps(rest, sort_keys=True)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))
def test_the_same_starts(testbed):
    found = recordings(testbed)
    ours = found["ours"]
    wrong = {}
    for release in BOTH:
        for name in [*(command.name for command in COMMANDS), UNTIMED]:
            if (told_apart := difference(name, found[release][name], ours[name], release)) is not None:
                wrong[name, release] = told_apart
    assert not wrong, "\n".join(f"{name}\n{what}" for name, what in wrong.items())
    # Everything that can be read is answered once, also the command that comes twice.
    assert {name for name, got in ours.items() if name != "it lives" and len(got) != 1} == set(SILENT)
    assert ours["it lives"] and not found["3.8.0"]["it lives"]


def test_readers_find_the_improvements():
    page = CONFORMANCE.read_text()
    for improvement in (*IMPROVEMENTS.values(), *EVERYWHERE):
        assert improvement.reason in page, improvement.reason
