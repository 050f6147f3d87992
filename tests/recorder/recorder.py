"""Sends the same messages to several endpoints over queues of a real RabbitMQ, and records what each answers.

A subject is an endpoint: ours, or one of upstream's. It is started as a manager starts a user endpoint, with
credentials on its standard input; all subjects get the same ids, so that what they answer differs by time alone.
"""

import base64
import json
import os
import re
import subprocess
import uuid
from pathlib import Path

import environments
import pika
from processes import until
from testbed import Endpoint

ENDPOINT = "99999999-2222-4333-8444-555555555555"
FUNCTION = "00000000-0000-4000-8000-0000000000f1"
TASKS = uuid.UUID("7a000000-0000-4000-8000-000000000000")
LAST = "the last one"
CONFIG = {
    "heartbeat_period": 5,
    "allowed_functions": [FUNCTION],
    "engine": {
        "type": "GlobusComputeEngine",
        "max_workers_per_node": 1,
        "provider": {"type": "LocalProvider", "init_blocks": 1, "min_blocks": 1, "max_blocks": 1},
    },
}


def messages(release):
    """The messages, packed by the SDK of a release, and after them one whose answer says that all others are in."""
    python = environments.python(f"sdk-{release}")
    made = subprocess.run([python, Path(__file__).with_name("messages.py")], capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    return [Message(**one) for one in json.loads(made.stdout)]


class Message:
    def __init__(self, name, headers, body):
        self.name = name
        self.task = str(uuid.uuid5(TASKS, name))

        def named(value):
            return value.replace("{task}", self.task) if isinstance(value, str) else value

        self.headers = {key: named(value) for key, value in headers.items()}
        self.body = base64.b64decode(body).replace(b"{task}", self.task.encode())


class Answer:
    """A result as it was published, but for its times."""

    def __init__(self, method, properties, body):
        self.exchange, self.routing_key = method.exchange, method.routing_key
        self.properties = {name: value for name, value in vars(properties).items() if value is not None}
        self.body = re.sub(rb'"timestamp":\d+', b'"timestamp":0', body)
        self.task = json.loads(body[1:])["data"]["task_id"]

    def data(self):
        return json.loads(self.body[1:])["data"]

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __repr__(self):
        return f"{self.exchange} {self.routing_key} {self.properties} {self.body[:3000]!r}"


class Recording:
    """What a subject did with the messages."""

    def __init__(self):
        # By the message's name.
        self.answers = {}
        # Names of messages that were in the queue again when the subject had gone.
        self.left = set()
        self.heartbeats = []
        self.alive = True


class Recorder:
    def __init__(self, testbed, broker):
        self.testbed = testbed
        self.broker = broker
        where = pika.ConnectionParameters(
            "127.0.0.1", broker.port, credentials=pika.PlainCredentials("guest", "guest"), heartbeat=0
        )
        self.connection = pika.BlockingConnection(where)
        self.channel = self.connection.channel()

    def _queue(self, suffix):
        return f"{ENDPOINT}.{suffix}"

    def _declare(self):
        kinds = {"tasks": "direct", "commands": "direct", "results": "topic", "heartbeats": "topic"}
        for name, kind in kinds.items():
            self.channel.exchange_declare(name, kind, durable=True)
            self.channel.queue_delete(self._queue(name))
            self.channel.queue_declare(self._queue(name), durable=True)
            self.channel.queue_bind(self._queue(name), name, self._queue(name))

    def credentials(self):
        url = f"amqp://guest:guest@127.0.0.1:{self.broker.port}/%2F"

        def source(name):
            return {"connection_url": url, "queue": self._queue(name), "exchange": name}

        def target(name):
            kwargs = {
                "exchange": name,
                "routing_key": self._queue(name),
                "mandatory": True,
                "properties": {"delivery_mode": 2, "content_type": "application/octet-stream", "headers": {"from": "registration"}},
            }
            return source(name) | {"queue_publish_kwargs": kwargs}

        return {
            "endpoint_id": ENDPOINT,
            "task_queue_info": source("tasks"),
            "command_queue_info": source("commands"),
            "result_queue_info": target("results"),
            "heartbeat_queue_info": target("heartbeats"),
        }

    def record(self, subject, given):
        """Starts the subject, gives it the messages, and stops it."""
        self._declare()
        recording = Recording()
        names = {message.task: message.name for message in given}
        document = {"amqp_creds": self.credentials(), "config": json.dumps(CONFIG), "ep_info": {"posix_ppid": os.getpid()}}
        process = subject.start(self.testbed, document)

        def beats():
            assert process.running(), f"{subject.name} ended:\n{process.output()}"
            return self._take("heartbeats")

        recording.heartbeats += until(beats, f"{subject.name} is heard of", 90)
        for message in given:
            self._publish(message)
        # Those that end a session with the broker may be delivered once more, so the last one comes when all is quiet.
        last = Message(LAST, given[0].headers, base64.b64encode(given[0].body))
        last.headers = last.headers | {"task_uuid": last.task}
        last.body = last.body.replace(given[0].task.encode(), last.task.encode())
        names[last.task] = LAST
        self._publish(last)

        def answered():
            for answer in map(lambda taken: Answer(*taken), self._take("results")):
                recording.answers.setdefault(names.get(answer.task, answer.task), []).append(answer)
            return LAST in recording.answers or not process.running()

        until(answered, f"{subject.name} answers the last message", 150)
        recording.alive = process.running()
        subject.stop(process)
        answered()
        until(lambda: self._unconsumed(), "its consumer is gone", 30)
        by_body = {(message.body, json.dumps(message.headers)): message.name for message in given}
        for _, properties, body in self._take("tasks"):
            recording.left.add(by_body.get((body, json.dumps(properties.headers or {})), repr(body[:80])))
        recording.answers.pop(LAST, None)
        return recording

    def _publish(self, message):
        properties = pika.BasicProperties(headers=message.headers or None, delivery_mode=2)
        self.channel.basic_publish("tasks", self._queue("tasks"), message.body, properties)

    def _unconsumed(self):
        return self.channel.queue_declare(self._queue("tasks"), passive=True).method.consumer_count == 0

    def _take(self, suffix):
        taken = []
        while True:
            method, properties, body = self.channel.basic_get(self._queue(suffix), auto_ack=True)
            if method is None:
                return taken
            taken.append((method, properties, body))


class Subject:
    """An endpoint, and how a manager starts it. Its workers have the packages of `release`."""

    def __init__(self, name, release, upstream):
        self.name = name
        self.release = release
        self.upstream = upstream

    def start(self, testbed, document):
        endpoint = Endpoint(testbed, None, self.name, python=f"sdk-{self.release}", upstream=self.upstream)
        endpoint.directory = testbed.directory / f"{self.name}-home"
        # As a manager does for it.
        (endpoint.directory / self.name).mkdir(parents=True, mode=0o700)
        command = ["start", self.name, "--die-with-parent"]
        if self.release != "3.8.0":
            command = ["_start-user-endpoint", self.name]
        environment = testbed.environment(endpoint.python, GLOBUS_COMPUTE_USER_DIR=endpoint.directory)
        self.log = endpoint.directory / self.name / "endpoint.log"
        return testbed.start(self.name, endpoint.command(*command), environment, json.dumps(document))

    def stop(self, process):
        if process.running():
            process.stop(grace=60)
