"""Every scenario, played to RabbitMQ and to ours: the transcripts are the same, line by line.

Nothing is recorded beforehand: RabbitMQ plays live in the same run. Scenarios share no names, so several play at once.
"""

import difflib
from concurrent.futures import ThreadPoolExecutor

import pytest

import scenarios  # noqa: F401
from departures import DEPARTURES
from stage import SCENARIOS, observe

AT_ONCE = 4


@pytest.fixture(scope="module")
def transcripts(request, rabbitmq, ours):
    """Begins all scenarios of this run; each test waits for its own."""
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    wanted = [given["name"] for given in parameters if given.get("name") in SCENARIOS]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: [pool.submit(observe, SCENARIOS[name], broker.port) for broker in (rabbitmq, ours)] for name in wanted}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", SCENARIOS)
def test_same_as_rabbitmq(name, transcripts, ours):
    theirs, mine = (playing.result() for playing in transcripts[name])
    assert ours.running(), ours.output()
    assert not any("gave up" in line for line in theirs), theirs
    if name not in DEPARTURES:
        assert mine == theirs, f"{name}: - RabbitMQ, + ours\n{difference(theirs, mine)}"
        return
    departure = DEPARTURES[name]
    assert mine != theirs, f"no departure any more: {departure.reason}"
    assert mine == departure.ours, f"not the departure that is written down\n{difference(departure.ours, mine)}"


def test_departures_are_of_scenarios_there_are():
    assert set(DEPARTURES) <= set(SCENARIOS)


def difference(theirs, mine):
    return "\n".join(difflib.unified_diff(theirs, mine, "RabbitMQ", "ours", lineterm="", n=2))
