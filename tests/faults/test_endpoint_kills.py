"""SIGKILL of the endpoint, its nodes and its workers at random moments under load, under a real RabbitMQ: every task that
was given out has exactly one result or is back in its queue, and began at most once."""

import os
import random
import re
import signal
import time
from collections import Counter

import pytest
from ledger import Ledger
from processes import until

LOST = re.compile(r"(Worker|Manager)Lost")


def kills(testbed, broker, rounds, seed):
    chance = random.Random(seed)
    ledger = Ledger(testbed, broker, f"killed-{seed}").start()
    killed = Counter()
    for number in range(rounds):
        # Quick ones, slow ones and large ones, so that a kill meets them at every stage.
        ledger.give(chance.randrange(20, 60))
        ledger.give(chance.randrange(1, 6), seconds=chance.uniform(0.05, 0.4))
        ledger.give(1, size=300_000)
        begun = len(ledger.begun())
        until(lambda: len(ledger.begun()) > begun or not ledger.waiting("tasks"), "tasks run", 60)
        time.sleep(chance.uniform(0, 0.5))
        victim = ["endpoint", "node", "worker"][number % 3]
        if victim == "endpoint":
            ledger.endpoint.kill()
            killed[victim] += 1
            ledger.start()
            continue
        if victim == "node":
            # A first block that dies before it has joined does not work, and the endpoint would end and say so.
            until(lambda: "node joined" in ledger.log().rsplit("the endpoint runs", 1)[-1], "a node joins", 60)
        for pid in ledger.pids({"node": " node --block", "worker": "Executor/worker"}[victim])[:1]:
            killed[victim] += 1
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it died in this moment
    outcomes = ledger.close()
    ended = Counter("value" if code is None else "lost" for code, _ in outcomes.values())
    print(dict(ended), dict(killed))
    assert [text for code, text in outcomes.values() if code and not LOST.search(text)] == []
    assert ended["value"] > ended["lost"]
    assert killed["endpoint"] >= rounds // 3


def test_nine_kills(testbed, rabbitmq):
    kills(testbed, rabbitmq, 9, seed=8)


@pytest.mark.long("kills")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(80, 90))
def test_sixty_kills(testbed, rabbitmq, seed):
    kills(testbed, rabbitmq, 60, seed)
