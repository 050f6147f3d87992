"""One user's tasks, while each program is killed, suspended, stopped and disconnected, alone and together.

What must hold at the end, whatever the seed:
- no future ended twice, no client waits for a result in vain, and every task that the service accepted has ended;
- a task that ended in a value ended in its own value, byte for byte; a task that fails fails with its own error;
- any other outcome names the party that was lost, and only if a party was killed that could lose it;
- with our endpoint no task began twice, and one that ended in a value or in its own error began once.

With upstream's endpoint tasks may run twice: it does not look whether it has run one before, and acknowledges up to half
a second late. Its double runs are counted, and each needs a cause: an endpoint or a connection of it that broke. It may
also lose results that it had sent and nobody had confirmed; the service ends their tasks as lost, once it is started
again.

A run is identified by its endpoint and its seed. `FARCALL_CHAOS=SEED` repeats one with our endpoint,
`FARCALL_CHAOS=3.8.0/SEED` one with upstream's, `FARCALL_CHAOS=postgres/SEED` one with our endpoint and the service on PostgreSQL,
which breaks too. A run that fails is written into `seeds` and repeated from then on.
"""

import json
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from links import Link
from matrix import OURS
from postgres import Postgres
from processes import alive, marked, until
from testbed import Endpoint

SAVED = Path(__file__).parent / "seeds"
PLAYED = [line.split()[0] for line in SAVED.read_text().splitlines() if line and line[0] != "#"]
RUNS = [os.environ["FARCALL_CHAOS"]] if "FARCALL_CHAOS" in os.environ else PLAYED
LONG = {
    "chaos-1": [str(seed) for seed in range(1000, 1007)],
    "chaos-2": [str(seed) for seed in range(1007, 1014)],
    "chaos-3": [str(seed) for seed in range(1014, 1020)],
    "chaos-upstream": [f"3.8.0/{seed}" for seed in range(1020, 1024)],
    "postgres-faults": [f"postgres/{seed}" for seed in range(1030, 1033)],
}


class Far(Endpoint):
    """Our endpoint, with its broker behind a link."""

    amqp_port = None
    # A party that was lost, in the words of whoever misses it.
    lost = re.compile(r"(Worker|Manager)Lost")

    def configure(self):
        super().configure()
        path = self.directory / self.name / "config.yaml"
        config = json.loads(path.read_text()) | {"amqp_port": self.amqp_port, "heartbeat_period": 5}
        path.write_text(json.dumps(config))

    def settle(self):
        """What its owner does once everything works again."""


class Upstream(Far):
    """Upstream's endpoint. When it dies, the processes of its engine go too, as with the machine they are all on."""

    lost = re.compile(r"(Worker|Manager)Lost|Task failure due to loss of endpoint")

    def _others(self):
        return {self.service.process.pid, *self.users}

    # The processes of the testbed that are neither the endpoint's nor the service's.
    users = ()

    def kill(self):
        super().kill()
        for pid in marked(self.testbed.mark):
            if pid not in self._others():
                _send(pid, signal.SIGKILL)

    def stop(self):
        """Asks it to; it may hang, or have left by itself with an error, when its broker is out of reach."""
        if self.process.running():
            _send(self.process.pid, signal.SIGTERM)
            try:
                until(lambda: not self.process.running(), "it has left", 15)
            except AssertionError:
                pass
        self.kill()

    def settle(self):
        """Lets it run what it can, and starts it again if some tasks never end: the service gives what earlier runs had
        taken a minute after the new one's first report, and ends it as lost."""
        began = time.monotonic()
        quiet = [None, began]

        def done():
            status = self.service.rest().get(f"/v2/endpoints/{self.id}/status")
            tasks = status["farcall"]["tasks"]
            if tasks != quiet[0]:
                quiet[:] = tasks, time.monotonic()
            # Its report of an idle engine is one of these last seconds: it sends one every five.
            idle = tasks["waiting"] == 0 and status["details"].get("outstanding_tasks", 0) == 0
            # One that has left by itself, or never comes to an end, needs the new start as well.
            over = not self.process.running() or time.monotonic() > began + 90
            return tasks["taken"] == tasks["waiting"] == 0 or over or (idle and time.monotonic() > quiet[1] + 12)

        until(done, "upstream's endpoint has run what it has", 120)
        if quiet[0]["taken"] or quiet[0]["waiting"]:
            self.stop()
            self.start()


class World:
    """All parties, and what can be done to them. What breaks something returns how to mend it."""

    def __init__(self, testbed, dice, whose=OURS, server=None):
        self.dice = dice
        self.server = server
        if server is None:
            self.service = testbed.service()
        else:
            self.service = testbed.service(configuration=f"store:\n  url: {server.create('farcall')}\n")
            self.BREAKS = self.BREAKS + self.DATABASE_BREAKS
        self.rest_link = Link(self.service.http_port)
        self.client_link = Link(self.service.amqp_port)
        self.endpoint_link = Link(self.service.amqp_port)
        if whose == OURS:
            self.endpoint = Far(testbed, self.service, "far", workers=2)
        else:
            self.endpoint = Upstream(testbed, self.service, "far", python=f"sdk-{whose}", workers=2, upstream=True)
            # What dies within its engine is that engine's own.
            self.BREAKS = [one for one in self.BREAKS if "node" not in one.__name__ and "worker" not in one.__name__]
        self.endpoint.amqp_port = self.endpoint_link.port
        testbed.endpoints.append(self.endpoint)
        self.endpoint.configure()
        self.endpoint.start()
        self.testbed = testbed
        self.log = []
        self.killed = Counter()
        # What may have made an endpoint forget that it runs a task, or a service that it was acknowledged.
        self.broke = Counter()

    def _pids(self, words):
        return [pid for pid, command in marked(self.testbed.mark).items() if words in command and alive(pid)]

    def kill_service(self):
        self.broke["service"] += 1
        self.service.kill()
        return 1, lambda: _start(self.service)

    def stop_service(self):
        """In order, and away for a while."""
        self.broke["service"] += 1
        # It may be asleep: who sleeps does not hear.
        _send(self.service.process.pid, signal.SIGCONT)
        self.service.stop()
        return 1, lambda: _start(self.service)

    def kill_endpoint(self):
        self.killed["endpoint"] += 1
        self.broke["endpoint"] += 1
        self.endpoint.kill()
        return 2, lambda: _start(self.endpoint)

    def stop_endpoint(self):
        self.killed["endpoint"] += 1
        self.broke["endpoint"] += 1
        _send(self.endpoint.process.pid, signal.SIGCONT)
        self.endpoint.stop()
        return 2, lambda: _start(self.endpoint)

    def kill_node(self):
        return self._kill("node", " node --block")

    def kill_worker(self):
        return self._kill("worker", "Executor/worker")

    def _kill(self, what, words):
        for pid in self._pids(words)[:1]:
            self.killed[what] += 1
            _send(pid, signal.SIGKILL)
        return 0, lambda: None

    def pause_service(self):
        return self._pause(self.service.process.pid)

    def pause_endpoint(self):
        return self._pause(self.endpoint.process.pid)

    def pause_node(self):
        return self._pause(*self._pids(" node --block")[:1])

    def pause_worker(self):
        return self._pause(*self._pids("Executor/worker")[:1])

    def _pause(self, *pids):
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        return 0, lambda: [_send(pid, signal.SIGCONT) for pid in pids]

    def cut_rest(self):
        return self._hurt(self.rest_link)

    def cut_client(self):
        return self._hurt(self.client_link)

    def cut_endpoint(self):
        self.broke["endpoint's link"] += 1
        return self._hurt(self.endpoint_link)

    def _hurt(self, link):
        self.dice.choice([link.cut, link.freeze])()
        return 0, link.mend

    BREAKS = [
        *(kill_service, stop_service, kill_endpoint, stop_endpoint, kill_node, kill_worker),
        *(pause_service, pause_endpoint, pause_node, pause_worker, cut_rest, cut_client, cut_endpoint),
    ]

    def kill_database(self):
        self.server.kill()
        return 0, lambda: self._start_database()

    def restart_database(self):
        self._start_database()
        self.server.restart()
        return 0, lambda: None

    def pause_database(self):
        self.server.pause()
        return 0, self.server.resume

    def end_sessions(self):
        self._start_database()
        self.server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'farcall'")
        return 0, lambda: None

    def _start_database(self):
        self.server.resume()
        if not self.server.running():
            self.server.start()

    DATABASE_BREAKS = [kill_database, restart_database, pause_database, end_sessions]

    def chaos(self, until):
        """Breaks one thing or two, waits, mends them, waits; and so on."""
        began = time.monotonic()
        order = []
        while time.monotonic() < until:
            order = order or self.dice.sample(self.BREAKS, len(self.BREAKS))
            broken = [order.pop() for _ in range(min(len(order), self.dice.choice([1, 1, 2])))]
            self.log.append(f"{time.monotonic() - began:5.1f} s: {', '.join(one.__name__ for one in broken)}")
            mends = [one(self) for one in broken]
            time.sleep(self.dice.uniform(0.1, 2.0))
            for _, mend in sorted(mends, key=lambda pair: pair[0]):
                mend()
            time.sleep(self.dice.uniform(0.2, 1.5))


def _start(party):
    """Unless it has been started already, after two breaks at once."""
    if not party.process.running():
        party.start()


def _send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it died in this moment


def run(testbed, name, tasks, seconds):
    whose, _, seed = name.rpartition("/")
    if whose == "postgres":
        with Postgres() as server:
            play(testbed, World(testbed, random.Random(f"chaos {seed}"), server=server), name, seed, tasks, seconds)
            # The service stops in order only while its database is there.
            testbed.close()
    else:
        play(testbed, World(testbed, random.Random(f"chaos {seed}"), whose or OURS), name, seed, tasks, seconds)


def play(testbed, world, name, seed, tasks, seconds):
    marks = testbed.directory / "marks"
    marks.mkdir()
    script = client(world, seed, tasks, seconds, marks)
    script.wait_for_report()
    try:
        world.chaos(time.monotonic() + seconds)
        script.wait_for_report(2, timeout=120)
        world.endpoint.settle()
        (testbed.directory / "mended").touch()
        account = script.finish(timeout=330)[-1]
        balance(world, account, begun_by(marks))
    except AssertionError as failure:
        if name not in PLAYED:
            with open(SAVED, "a") as saved:
                saved.write(f"{name} {str(failure).splitlines()[0][:100]}\n")
        raise
    finally:
        print("\n".join(world.log))


def client(world, seed, tasks, seconds, marks):
    """The user's script, which reaches REST and the broker through links of its own."""
    directory = world.testbed.directory
    script = world.service.sdk("4.19.0").start(
        (Path(__file__).parent / "client.py").read_text(),
        *(world.endpoint.id, world.client_link.port, seed, tasks, seconds, marks, directory / "mended"),
        http_proxy=f"http://127.0.0.1:{world.rest_link.port}",
    )
    world.endpoint.users = (script.process.pid,)
    return script


def begun_by(marks):
    """How often each task began."""
    return Counter(line.split()[0] for file in marks.iterdir() for line in file.read_text().splitlines())


def known(world, entries):
    """What the service says of tasks: how many of each status."""
    found = world.service.rest().post("/v2/batch_status", {"task_ids": [entry["task"] for entry in entries]})["results"]
    return Counter(task["status"] for task in found.values())


def balance(world, account, begun):
    """The account of the client against the account of the workers, and that of the service."""
    entries = account["entries"]
    kinds = Counter(entry["how"][0] for entry in entries)
    print(f"{dict(kinds)}, {account['reloads']} reloads, killed {dict(world.killed)}")
    assert [entry for entry in entries if entry["told"] > 1] == [], "a future that ended twice"
    assert [entry for entry in entries if entry["how"][0] == "undelivered"] == [], "a result that never came"
    accepted = [entry for entry in entries if entry["task"]]
    refused = Counter(entry["how"][1][:200] for entry in entries if not entry["task"])
    assert len(accepted) > len(entries) / 2, f"hardly anything was accepted: {refused.most_common(3)}"
    given_up = [entry for entry in accepted if entry["how"][0] == "gave up"]
    assert given_up == [], f"accepted tasks without an end; the service says {known(world, given_up[:1000])}"
    strange = [entry for entry in accepted if entry["how"][0] == "error" and not world.endpoint.lost.search(entry["how"][1])]
    assert strange == [], "an outcome that nothing explains"
    lost = [entry for entry in accepted if entry["how"][0] == "error"]
    assert not lost or world.killed or world.broke, "a lost party, and none was killed"
    twice = {task: times for task, times in begun.items() if times > 1}
    if isinstance(world.endpoint, Upstream):
        # Each break may deliver once more what was not acknowledged: half a second's tasks.
        print(f"{len(twice)} tasks began twice or more, breaks {dict(world.broke)}")
        assert not twice or max(twice.values()) <= 1 + world.broke.total(), "more runs than breaks explain"
    else:
        assert twice == {}, "begun twice"
    unbegun = [entry for entry in accepted if entry["how"][0] in ("value", "failed") and begun[entry["task"]] == 0]
    assert unbegun == [], "an outcome of a function that did not run"
    rest = world.service.rest()
    ids = [entry["task"] for entry in accepted]
    statuses = {}
    for first in range(0, len(ids), 1000):
        statuses |= rest.post("/v2/batch_status", {"task_ids": ids[first : first + 1000]})["results"]
    wanted = {entry["task"]: "success" if entry["how"][0] == "value" else "failed" for entry in accepted}
    assert {task: status["status"] for task, status in statuses.items()} == wanted, "the service and the client disagree"


@pytest.mark.timeout(700)
@pytest.mark.parametrize("name", RUNS)
def test_the_ledger_balances(testbed, name):
    run(testbed, name, tasks=10_000 if "/" not in name else 2_000, seconds=25)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long(part)) for part, names in LONG.items() for name in names]
)
def test_the_ledger_balances_for_longer(testbed, name):
    run(testbed, name, tasks=10_000 if "/" in name else 20_000, seconds=120)


def test_a_watcher_that_gave_up_is_followed_by_another(testbed):
    """The stock SDK's watcher tries five times to reach the broker, then fails its futures. The tasks run all the same, and
    a new program that reloads them has every result."""
    service = testbed.service()
    link = Link(service.amqp_port)
    endpoint = testbed.endpoint(service)
    gate = testbed.directory / "gate"
    script = service.sdk("4.19.0").start(
        """
        import os, random, sys, time
        endpoint, port, gate = sys.argv[1:]

        def gated(gate, value):
            import pathlib, time
            while not pathlib.Path(gate).exists():
                time.sleep(0.01)
            return value

        # It waits up to ten seconds between two attempts; here, always the least of its choice.
        random.uniform = lambda low, high: low
        ex = executor(endpoint, amqp_port=int(port))
        futures = [ex.submit(gated, gate, value) for value in range(20)]
        while not all(future.task_id for future in futures):
            time.sleep(0.02)
        report(str(ex.task_group_id))
        report([type(future.exception(timeout=60)).__name__ for future in futures])
        # Threads of the SDK that wait for what it gave up would keep this process for ever.
        os._exit(0)
        """,
        *(endpoint.id, link.port, gate),
    )
    group = script.wait_for_report()
    link.cut()
    # Each failed with the watcher's error, and none with a task's.
    assert "TaskExecutionFailed" not in script.finish()[1]
    link.mend()
    gate.touch()
    reports = service.sdk("4.19.0").run(
        """
        import sys
        endpoint, group = sys.argv[1:]

        with executor(endpoint, task_group_id=group) as ex:
            report(sorted(future.result(timeout=60) for future in ex.reload_tasks()))
        """,
        *(endpoint.id, group),
    )
    assert reports == [list(range(20))]
