"""Runs every scenario against RabbitMQ and against our broker, and compares the transcripts line by line.

RabbitMQ runs live in the same test run; nothing is recorded beforehand. Several scenarios run at once, since they share no
names.
"""

import difflib
from concurrent.futures import ThreadPoolExecutor

import pytest

import scenarios  # noqa: F401
from departures import DEPARTURES
from stage import SCENARIOS, observe

AT_ONCE = 4
# Seconds for one scenario, with all that were started before it.
DEADLINE = 150


@pytest.fixture(scope="module")
def transcripts(request, rabbitmq, ours):
    """Starts all selected scenarios. Each test waits for its own."""
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    wanted = [given["name"] for given in parameters if given.get("name") in SCENARIOS]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: [pool.submit(observe, SCENARIOS[name], broker.port) for broker in (rabbitmq, ours)] for name in wanted}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", SCENARIOS)
def test_same_as_rabbitmq(name, transcripts, ours):
    theirs, mine = (running.result(DEADLINE) for running in transcripts[name])
    assert ours.running(), ours.output()
    assert not any("gave up" in line for line in theirs), theirs
    if name not in DEPARTURES:
        assert mine == theirs, f"{name}: - RabbitMQ, + ours\n{difference(theirs, mine)}"
        return
    departure = DEPARTURES[name]
    assert mine != theirs, f"the transcripts are the same now; remove the departure: {departure.reason}"
    assert mine == departure.ours, f"not the departure of departures.py\n{difference(departure.ours, mine)}"


def test_departures_name_scenarios():
    assert set(DEPARTURES) <= set(SCENARIOS)


def difference(theirs, mine):
    return "\n".join(difflib.unified_diff(theirs, mine, "RabbitMQ", "ours", lineterm="", n=2))
