"""A broker that breaks the protocol, in every way we could think of: the endpoint leaves the connection, with a line in its
log and in bounded memory, comes back, and does its work. It never crashes and never hangs."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostile_broker import SCENARIOS, Hostile
from ledger import CONFIG, Ledger

AT_ONCE = 18
# An endpoint at work in a debug build takes less than 60 MB; the window of tasks may take 64 MB more, and a body as much
# again while it comes.
MEGABYTES = 400
LAZY = {"engine": CONFIG["engine"] | {"max_workers_per_node": 1, "provider": {"type": "LocalProvider", "init_blocks": 0, "min_blocks": 0, "max_blocks": 1}}}


def play(testbed, rabbitmq, name):
    hostile = Hostile(SCENARIOS[name], rabbitmq.port)
    try:
        ledger = Ledger(testbed, rabbitmq, re.sub(r"\W", "-", name), hostile.port)
        ledger.give(1)
        ledger.start(LAZY)
        ledger.settled(timeout=150)
        status = Path(f"/proc/{ledger.endpoint.process.pid}/status").read_text()
        most = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
        ledger.endpoint.stop()
        [(code, _)] = ledger.account().values()
        # Until the broker grants the queue, the endpoint speaks where it was started.
        return hostile.outcome, most, code, ledger.endpoint.process.output() + ledger.log()
    finally:
        hostile.close()


@pytest.mark.timeout(500)
def test_it_comes_back_and_works(testbed, rabbitmq):
    with ThreadPoolExecutor(AT_ONCE) as pool:
        playing = {name: pool.submit(play, testbed, rabbitmq, name) for name in SCENARIOS}
    wrong = {}
    for name, played in playing.items():
        if played.exception():
            wrong[name] = str(played.exception())
            continue
        outcome, most, code, log = played.result()
        fine = outcome == "over" and code is None and "no connection to the broker" in log
        if not fine or "panicked" in log or most > MEGABYTES:
            wrong[name] = f"{outcome}, {code}, {most:.0f} MB\n{log[-3000:]}"
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())
    assert len(playing) == 36
