"""The broker is unreachable for half a minute, is killed, is stopped in order: no task that was sent is lost, and none
runs twice."""

import time

import pytest
from ledger import Ledger
from links import Link
from processes import until
from rabbitmq import RabbitMQ

AWAY = 30


def test_away_for_half_a_minute(testbed, rabbitmq):
    """Three endpoints at once: a link that is cut, one that swallows everything and is noticed by its silence, and one
    that swallows everything for less time than its heartbeats allow."""
    ways = {"cut": "", "noticed": "?heartbeat=4", "patient": "?heartbeat=60"}
    links = {name: Link(rabbitmq.port) for name in ways}
    ledgers = {name: Ledger(testbed, rabbitmq, name, links[name].port, query).start() for name, query in ways.items()}
    for ledger in ledgers.values():
        ledger.give(5)
    for ledger in ledgers.values():
        ledger.settled()
    for name, ledger in ledgers.items():
        ledger.give(40, seconds=0.2)
        until(lambda: len(ledger.begun()) > 6, f"tasks of {name} run", 60)
        links[name].cut() if name == "cut" else links[name].freeze()
    away = time.monotonic()
    for ledger in ledgers.values():
        ledger.give(3)
    for name in ("cut", "noticed"):
        ledgers[name].says("no connection to the broker; trying again")
    # This is what is tested: that so long a time changes nothing.
    time.sleep(max(0, AWAY - (time.monotonic() - away)))
    assert all(ledger.endpoint.process.running() for ledger in ledgers.values())
    for link in links.values():
        link.mend()
    for name, ledger in ledgers.items():
        assert all(code is None for code, _ in ledger.close().values())
        assert ("no connection" in ledger.log()) == (name != "patient"), ledger.log()
        assert ledger.log().count("stopping") == 1


@pytest.mark.parametrize("end", ["kill", "leave"])
def test_restarted_under_load(testbed, end):
    broker = RabbitMQ()
    try:
        ledger = Ledger(testbed, broker, "restarted").start()
        ledger.give(300, seconds=0.02)
        until(lambda: len(ledger.begun()) > 20, "tasks run", 60)
        getattr(broker, end)()
        ledger.says("no connection to the broker; trying again", timeout=90)
        broker.start()
        ledger.connect()
        ledger.give(20)
        assert all(code is None for code, _ in ledger.close().values())
        # With a broker that is killed, an acknowledgement may be lost, and the task comes again: it is known.
        assert max(ledger.begun().values()) == 1
    finally:
        broker.stop()
