"""Plays the service at a broker, and keeps a ledger: which tasks were sent, answered, or returned to the queue.

The endpoint gets its credentials on standard input, as from a manager.
"""

import json
import re
import uuid
from collections import Counter, defaultdict

import pika
from processes import alive, marked, until
from testbed import Endpoint

FUNCTION = "00000000-0000-4000-8000-0000000000f1"
CONFIG = {
    "heartbeat_period": 5,
    "shutdown_grace": 2,
    "engine": {
        "type": "GlobusComputeEngine",
        "max_workers_per_node": 2,
        "provider": {"type": "LocalProvider", "init_blocks": 1, "min_blocks": 1, "max_blocks": 1},
    },
}

# It tells that it begins in one short write: whole or absent, whoever is killed.
WORK = """def work(marks, seconds, size):
    import os, time
    with open(os.path.join(marks, str(os.getpid())), "a") as begun:
        begun.write(os.environ["GC_TASK_UUID"] + "\\n")
    time.sleep(seconds)
    return "x" * size
"""


def task_body(task, *args):
    """A task as the service writes it: a function as source, its arguments as JSON."""
    buffers = (f"st\nwork:{WORK}", f"11\n{json.dumps(args)}", "11\n{}")
    data = {
        "task_id": task,
        "container_id": None,
        "container": None,
        "task_buffer": "".join(f"{len(buffer)}\n{buffer}" for buffer in buffers),
    }
    return b"\x01" + json.dumps({"message_type": "task", "data": data}).encode()


CONNECTED = "connected to the broker session="


class Ledger:
    """The queues of one endpoint, and everything that went through them. `port` is where the endpoint finds the broker,
    if not where the broker is."""

    def __init__(self, testbed, broker, name, port=None, query="", user="guest", password="guest"):
        self.testbed = testbed
        self.broker = broker
        self.name = name
        self.port = port or broker.port
        self.query = query
        self.user, self.password = user, password
        self.id = str(uuid.uuid4())
        self.given = []
        # The different results of each task, in the order they came.
        self.results = defaultdict(list)
        self.marks = testbed.directory / f"marks-{name}"
        self.marks.mkdir()
        self.endpoint = Endpoint(testbed, None, name)
        self.endpoint.id = self.id
        self.endpoint.directory = testbed.directory / f"home-{name}"
        self.endpoint.directory.mkdir()
        testbed.endpoints.append(self.endpoint)
        self.connect()
        for exchange, kind in (("tasks", "direct"), ("commands", "direct"), ("results", "topic"), ("heartbeats", "topic")):
            self.channel.exchange_declare(exchange, kind, durable=True)
            self.channel.queue_declare(self.queue(exchange), durable=True)
            self.channel.queue_bind(self.queue(exchange), exchange, self.queue(exchange))

    def queue(self, name):
        return f"{self.id}.{name}"

    def connect(self):
        """Connects; again, after the broker was away."""
        credentials = pika.PlainCredentials("guest", "guest")
        where = pika.ConnectionParameters("127.0.0.1", self.broker.port, credentials=credentials, heartbeat=0)

        def connected():
            try:
                return pika.BlockingConnection(where)
            except pika.exceptions.AMQPError:
                return None

        self.connection = until(connected, "the broker takes connections", 60)
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()

    def registration(self):
        url = f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}/%2F{self.query}"

        def source(name):
            return {"connection_url": url, "queue": self.queue(name), "exchange": name}

        def target(name):
            kwargs = {"exchange": name, "routing_key": self.queue(name), "mandatory": True, "properties": {"delivery_mode": 2}}
            return source(name) | {"queue_publish_kwargs": kwargs}

        return {
            "endpoint_id": self.id,
            "task_queue_info": source("tasks"),
            "command_queue_info": source("commands"),
            "result_queue_info": target("results"),
            "heartbeat_queue_info": target("heartbeats"),
        }

    def start(self, config=None, **variables):
        """Starts the endpoint, once more after its end; says nothing of whether it gets far."""
        self.connections = self.log().count(CONNECTED)
        self.endpoint.process = self.testbed.start(
            self.name,
            self.endpoint.command("start", self.name, "--die-with-parent"),
            self.testbed.environment(self.endpoint.python, **variables),
            json.dumps({"amqp_creds": self.registration(), "config": json.dumps(CONFIG | (config or {}))}),
        )
        return self

    def log(self):
        try:
            return (self.endpoint.directory / self.name / "endpoint.log").read_text()
        except FileNotFoundError:
            return ""

    def says(self, pattern, times=1, timeout=60):
        """Waits until the log holds `pattern`, so many times."""
        until(lambda: len(re.findall(pattern, self.log())) >= times, f"{self.name}'s log says {pattern!r}", timeout)

    def give(self, count, seconds=0.0, size=8):
        """Gives tasks out, and returns their ids. On disk at the broker when this returns."""
        tasks = [str(uuid.uuid4()) for _ in range(count)]
        for task in tasks:
            properties = pika.BasicProperties(headers={"task_uuid": task, "function_uuid": FUNCTION}, delivery_mode=2)
            self.channel.basic_publish("tasks", self.queue("tasks"), task_body(task, str(self.marks), seconds, size), properties)
        self.given += tasks
        return tasks

    def waiting(self, name):
        return self.channel.queue_declare(self.queue(name), passive=True).method.message_count

    def errors(self):
        """What the endpoint has told the service instead of a heartbeat."""
        told = []
        while True:
            method, _, body = self.channel.basic_get(self.queue("heartbeats"), auto_ack=True)
            if method is None:
                return told
            error = json.loads(body[1:])["data"]["global_state"].get("error")
            told += [error] if error else []

    def begun(self):
        """How often each task has begun."""
        return Counter(line for file in self.marks.iterdir() for line in file.read_text().splitlines())

    def pids(self, words):
        """Processes of this endpoint: ` node --block`, or `Executor/worker`."""
        home = str(self.endpoint.directory)
        found = marked(self.testbed.mark).items()
        return [pid for pid, command in found if words in command and home in command and alive(pid)]

    def settled(self, timeout=90):
        """Waits until every task given out has its result. The endpoint runs."""

        def all_answered():
            assert self.endpoint.process.running(), f"{self.name} ended:\n{self.endpoint.process.output()}\n{self.log()}"
            # A process that has not come so far yet would not stop in order.
            connected = self.log().count(CONNECTED) > self.connections
            return connected and self.answered() == len(self.given)

        until(all_answered, f"{self.name} answers {len(self.given)} tasks", timeout)

    def answered(self):
        """Takes the results that have come; how many tasks have one."""
        while True:
            method, _, body = self.channel.basic_get(self.queue("results"), auto_ack=True)
            if method is None:
                return len(self.results)
            data = json.loads(body[1:])["data"]
            result = ((data["error_details"] or {}).get("code"), data["data"])
            # A confirmation that was lost has a result sent again, to the letter.
            if result not in self.results[data["task_id"]]:
                self.results[data["task_id"]].append(result)

    def account(self, forgetful=False):
        """What became of each task: (code, text), or `None`. The endpoint has ended. Fails unless each task given out has
        exactly one result or is back in its queue, and began at most once. A `forgetful` endpoint could not write down
        that it had sent a result, and tells after it that the task was lost: the first one counts."""
        assert not self.endpoint.process.running()
        self.answered()
        results, back = defaultdict(list), Counter()
        for task, told in self.results.items():
            results[task] = told[:1] if forgetful and all("ManagerLost" in text for _, text in told[1:]) else told
        while True:
            method, properties, _ = self.channel.basic_get(self.queue("tasks"), auto_ack=True)
            if method is None:
                break
            back[properties.headers["task_uuid"]] += 1
        given = set(self.given)
        assert set(results) <= given and set(back) <= given
        strange = {}
        begun = self.begun()
        for task in given:
            if len(results[task]) + back[task] != 1:
                strange[task] = f"{results[task]}, {back[task]} times in the queue, begun {begun[task]} times"
            elif begun[task] > 1 or (back[task] and begun[task]):
                strange[task] = f"begun {begun[task]} times, {back[task]} times in the queue"
            elif results[task] and results[task][0][0] is None and begun[task] != 1:
                strange[task] = f"a value, begun {begun[task]} times"
        assert not strange, f"{strange}\n{self.log()[-4000:]}"
        return {task: results[task][0] if results[task] else None for task in self.given}

    def close(self, forgetful=False):
        """Waits for all results, stops the endpoint, and makes up the account."""
        self.settled()
        self.endpoint.stop()
        return self.account(forgetful)
