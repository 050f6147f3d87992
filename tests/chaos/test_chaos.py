"""One user's tasks, while every party dies, sleeps and loses its connections, in turn and together.

What must hold at the end, whatever the seed:
- no future ended twice, no client waits for a result in vain, and every task that the service accepted has ended;
- a task that ended in a value ended in its own value, byte for byte; a task that fails fails with its own error;
- any other outcome names the party that was lost, and only if a party was killed that could lose it;
- no task began twice, and one that ended in a value or in its own error began once.

A run is known by its seed. `FARCALL_CHAOS=SEED` plays one; a seed that fails is written into `seeds`, and played from
then on.
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
from processes import alive, marked
from scene import Endpoint

SAVED = Path(__file__).parent / "seeds"
PLAYED = [line.split()[0] for line in SAVED.read_text().splitlines() if line[:1].isdigit()]
SEEDS = [os.environ["FARCALL_CHAOS"]] if "FARCALL_CHAOS" in os.environ else PLAYED
LONG = [str(seed) for seed in range(1000, 1020)]
LOST = re.compile(r"(Worker|Manager)Lost")


class Far(Endpoint):
    """Our endpoint, with its broker behind a link."""

    amqp_port = None

    def configure(self):
        super().configure()
        path = self.directory / self.name / "config.yaml"
        config = json.loads(path.read_text()) | {"amqp_port": self.amqp_port, "heartbeat_period": 5}
        path.write_text(json.dumps(config))


class World:
    """All parties, and what can be done to them. What breaks something returns how to mend it."""

    def __init__(self, scene, dice):
        self.dice = dice
        self.service = scene.service()
        self.rest_link = Link(self.service.http_port)
        self.client_link = Link(self.service.amqp_port)
        self.endpoint_link = Link(self.service.amqp_port)
        self.endpoint = Far(scene, self.service, "far", workers=2)
        self.endpoint.amqp_port = self.endpoint_link.port
        scene.endpoints.append(self.endpoint)
        self.endpoint.configure()
        self.endpoint.start()
        self.scene = scene
        self.log = []
        self.killed = Counter()

    def _pids(self, words):
        return [pid for pid, command in marked(self.scene.mark).items() if words in command and alive(pid)]

    def kill_service(self):
        self.service.kill()
        return 1, self.service.start

    def kill_endpoint(self):
        self.killed["endpoint"] += 1
        self.endpoint.kill()
        return 2, self.endpoint.start

    def stop_endpoint(self):
        self.killed["endpoint"] += 1
        # It may be asleep: who sleeps does not hear.
        _send(self.endpoint.process.pid, signal.SIGCONT)
        self.endpoint.stop()
        return 2, self.endpoint.start

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

    def _pause(self, *pids):
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        return 0, lambda: [_send(pid, signal.SIGCONT) for pid in pids]

    def cut_rest(self):
        return self._hurt(self.rest_link)

    def cut_client(self):
        return self._hurt(self.client_link)

    def cut_endpoint(self):
        return self._hurt(self.endpoint_link)

    def _hurt(self, link):
        self.dice.choice([link.cut, link.freeze])()
        return 0, link.mend

    BREAKS = [
        *(kill_service, kill_endpoint, stop_endpoint, kill_node, kill_worker),
        *(pause_service, pause_endpoint, pause_node, cut_rest, cut_client, cut_endpoint),
    ]

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


def _send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it died in this moment


def run(scene, seed, tasks, seconds):
    world = World(scene, random.Random(f"chaos {seed}"))
    marks = scene.directory / "marks"
    marks.mkdir()
    sdk = world.service.sdk("4.19.0")
    script = sdk.start(
        (Path(__file__).parent / "client.py").read_text(),
        *(world.endpoint.id, world.client_link.port, seed, tasks, seconds, marks, scene.directory / "mended"),
        http_proxy=f"http://127.0.0.1:{world.rest_link.port}",
    )
    script.hear()
    try:
        world.chaos(time.monotonic() + seconds)
        script.hear(2, timeout=120)
        (scene.directory / "mended").touch()
        account = script.finish(timeout=240)[-1]
        begun = Counter(line.split()[0] for file in marks.iterdir() for line in file.read_text().splitlines())
        balance(world, account, begun)
    except AssertionError as failure:
        if seed not in PLAYED:
            with open(SAVED, "a") as saved:
                saved.write(f"{seed} {str(failure).splitlines()[0][:100]}\n")
        raise
    finally:
        print("\n".join(world.log))


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
    strange = [entry for entry in accepted if entry["how"][0] == "error" and not LOST.search(entry["how"][1])]
    assert strange == [], "an outcome that nothing explains"
    lost = [entry for entry in accepted if entry["how"][0] == "error"]
    assert not lost or world.killed, "a lost party, and none was killed"
    twice = {task: times for task, times in begun.items() if times > 1}
    assert twice == {}, "begun twice"
    unbegun = [entry for entry in accepted if entry["how"][0] in ("value", "failed") and begun[entry["task"]] != 1]
    assert unbegun == [], "an outcome of a function that did not run"
    rest = world.service.rest()
    ids = [entry["task"] for entry in accepted]
    statuses = {}
    for first in range(0, len(ids), 1000):
        statuses |= rest.post("/v2/batch_status", {"task_ids": ids[first : first + 1000]})["results"]
    wanted = {entry["task"]: "success" if entry["how"][0] == "value" else "failed" for entry in accepted}
    assert {task: status["status"] for task, status in statuses.items()} == wanted, "the service and the client disagree"


@pytest.mark.timeout(500)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_ledger_balances(scene, seed):
    run(scene, seed, tasks=10_000, seconds=25)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", LONG)
def test_the_ledger_balances_for_longer(scene, seed):
    run(scene, seed, tasks=20_000, seconds=120)
