"""Our endpoint and upstream's, of both releases, are given the same messages: the bytes, properties and headers of what
they answer are the same, but for the listed improvements.

Nothing is recorded beforehand: all of them run here, under a RabbitMQ.
"""

import json
import re
from pathlib import Path

import pytest
from improvements import BOTH, FRAMES, IMPROVEMENTS
from rabbitmq import RabbitMQ
from recorder import Recorder, Subject, messages

CONFORMANCE = Path(__file__).resolve().parents[2] / "CONFORMANCE.md"

# A frame that is not of a function of `messages.py`, with the line of source and the marks below it.
FRAME = re.compile(r'^[ |]*File "(?!messages\.py)[^"]+", line \d+, in .*\n(?:[ |]+(?!File ).*\n(?:[ |]+[\^~ ]+\n)?)?', re.MULTILINE)


@pytest.fixture(scope="module", params=BOTH)
def release(request):
    return request.param


@pytest.fixture(scope="module")
def given(release):
    return messages(release)


@pytest.fixture(scope="module")
def recordings(shared_testbed, release, given):
    """What upstream's endpoint and ours do with the messages, one after the other under one broker."""
    broker = RabbitMQ()
    try:
        recorder = Recorder(shared_testbed, broker)
        subjects = [Subject(f"upstream-{release}", release, True), Subject(f"ours-{release}", release, False)]
        yield [recorder.record(subject, given) for subject in subjects]
    finally:
        broker.stop()


def without_frames(answers):
    """What is left of answers when the agent's own frames are taken from their tracebacks."""
    told = []
    for answer in answers or []:
        data = answer.data()
        data["data"] = FRAME.sub("", data["data"])
        told.append((answer.exchange, answer.routing_key, answer.properties, data))
    return told


def said(answers):
    """The text of the one answer, or `None`."""
    if answers is None:
        return None
    [answer] = answers
    return answer.data()["data"]


def test_the_same_answers(recordings, release, given):
    upstream, ours = recordings
    wrong = {}
    for message in given:
        name = message.name
        theirs, mine = upstream.answers.get(name), ours.answers.get(name)
        improvement = IMPROVEMENTS.get(name)
        if improvement is None or release not in improvement.releases:
            # The same bytes; or, in an error, the same but for frames of the agent.
            if theirs != mine and not ("Traceback" in (said(theirs) or "") and without_frames(theirs) == without_frames(mine)):
                wrong[name] = f"- {theirs}\n+ {mine}"
        elif theirs == mine:
            wrong[name] = f"no improvement any more: {improvement.reason}"
        else:
            for who, answer, expected in ("upstream", theirs, improvement.upstream), ("ours", mine, improvement.ours):
                heard = said(answer)
                if (heard is None) != (expected is None) or (heard is not None and expected not in heard):
                    wrong[f"{name}, {who}"] = f"not what is written down: {heard}"
    assert not wrong, "\n".join(f"{name}\n{what}" for name, what in wrong.items())
    known = {message.name for message in given}
    assert set(IMPROVEMENTS) <= known and set(ours.answers) <= known


def test_properties_and_headers_are_those_of_the_registration(recordings):
    for recording in recordings:
        for [answer] in recording.answers.values():
            assert answer.properties == {
                "delivery_mode": 2,
                "content_type": "application/octet-stream",
                "headers": {"from": "registration"},
            }


def test_no_message_is_left_and_nobody_died(recordings):
    for recording in recordings:
        assert recording.alive
        assert recording.left == set()


def test_ours_answers_every_message_that_names_a_task(recordings, given):
    _, ours = recordings
    unanswered = {message.name for message in given} - set(ours.answers)
    assert unanswered == {"a task that is no id"}


def test_heartbeats_have_what_upstreams_have(recordings):
    def state(recording):
        (_, properties, body), *_ = recording.heartbeats
        assert properties.delivery_mode == 2 and body[:1] == b"\x01"
        message = json.loads(body[1:])
        assert message["message_type"] == "ep_status_report"
        return message["data"]["global_state"]

    upstream, ours = map(state, recordings)
    assert set(ours) - set(upstream) == {"farcall"}
    assert set(upstream) <= set(ours)
    for name in upstream:
        numbers = isinstance(upstream[name], (int, float)) and isinstance(ours[name], (int, float))
        assert numbers or type(upstream[name]) is type(ours[name]), name


def test_readers_find_the_improvements():
    page = CONFORMANCE.read_text()
    for reason in {FRAMES, *(improvement.reason for improvement in IMPROVEMENTS.values())}:
        assert reason in page, reason
