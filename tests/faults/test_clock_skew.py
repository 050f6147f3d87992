"""The endpoint's clock is wrong, and jumps: no task is lost or told twice, heartbeats go on, and `doctor` says it."""

import glob

import pytest
from ledger import CONFIG, Ledger
from processes import until

# The nodes' clock is right: the library would also make Python's `sleep` fail.
ENGINE = CONFIG["engine"]
RIGHT = {"engine": ENGINE | {"provider": ENGINE["provider"] | {"worker_init": "unset LD_PRELOAD"}}}


@pytest.fixture
def clock(testbed):
    """A clock that is `set` to be so far off; of every process that has its `variables`."""
    [library, *_] = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    file = testbed.directory / "clock"

    class Clock:
        variables = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            # A clock that is set does not touch the one that only counts.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

        @staticmethod
        def set(offset):
            file.write_text(offset + "\n")

    Clock.set("+0d")
    return Clock


def test_the_clock_jumps_under_load(testbed, rabbitmq, clock):
    clock.set("+1d")
    ledger = Ledger(testbed, rabbitmq, "jumps").start(RIGHT, **clock.variables)
    ledger.give(40, seconds=0.1)
    until(lambda: ledger.begun(), "tasks run", 60)
    for offset in ("-1d", "+30d", "-400d", "+0d"):
        clock.set(offset)
        beats = ledger.waiting("heartbeats")
        ledger.give(10)
        until(lambda: ledger.waiting("heartbeats") > beats, f"heartbeats go on at {offset}", 60)
    ledger.settled()
    # What the journal says comes from the future, then from long ago: what was running is lost, once.
    for offset in ("-2d", "+3d", "+60d"):
        before = len(ledger.begun())
        ledger.give(4, seconds=1)
        until(lambda: len(ledger.begun()) > before, "tasks run", 60)
        ledger.endpoint.kill()
        clock.set(offset)
        ledger.start(RIGHT, **clock.variables)
    outcomes = ledger.close()
    lost = [text for code, text in outcomes.values() if code]
    assert len(lost) in range(3, 7) and all("ManagerLost" in text for text in lost), lost


def test_the_service_takes_it_and_doctor_says_it(testbed, clock):
    service = testbed.service()
    clock.set("+1d")
    endpoint = testbed.endpoint(service, variables=clock.variables)
    reports = service.sdk("4.19.0").run(
        """
        import sys
        with executor(sys.argv[1]) as ex:
            report(ex.submit(len, "four").result(timeout=90))
        """,
        endpoint.id,
    )
    assert reports == [4]
    found = endpoint.run("doctor", endpoint.name)
    assert "this machine's clock is 86" in found.stdout + found.stderr, found.stdout + found.stderr
