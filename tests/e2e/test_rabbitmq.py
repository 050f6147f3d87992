"""Our endpoint under a real RabbitMQ with hand-made credentials, no service behind it: what it takes, what it answers,
what it ends when told to, and what it does when the broker goes away."""

import base64
import http.server
import json
import pickle
import sys
import threading
import time
import uuid
from pathlib import Path

import pika
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "broker"))

from rabbitmq import RabbitMQ  # noqa: E402

from processes import until  # noqa: E402
from testbed import Endpoint  # noqa: E402

CONFIG = {"heartbeat_period": 5, "engine": {"type": "GlobusComputeEngine", "max_workers_per_node": 1}}
FUNCTION = "00000000-0000-4000-8000-0000000000f1"


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


@pytest.fixture(scope="module")
def rabbitmq():
    broker = RabbitMQ()
    yield broker
    broker.stop()


def framed(*buffers):
    return "".join(f"{len(buffer)}\n{buffer}" for buffer in buffers)


def task_body(task, source, *args):
    """A task as the service writes it: a function as source, its arguments as JSON."""
    name = source.split("(")[0].removeprefix("def ").strip()
    buffer = framed(f"st\n{name}:{source}", f"11\n{json.dumps(args)}", "11\n{}")
    data = {"task_id": task, "container_id": None, "container": None, "task_buffer": buffer}
    return b"\x01" + json.dumps({"message_type": "task", "data": data}).encode()


class Stage:
    """The queues of one endpoint, and somebody who plays the service."""

    def __init__(self, testbed, broker, name, **config):
        self.id = str(uuid.uuid4())
        self.broker = broker
        self.config = CONFIG | config
        self.connect()
        for exchange, kind in (("tasks", "direct"), ("commands", "direct"), ("results", "topic"), ("heartbeats", "topic")):
            self.channel.exchange_declare(exchange, kind, durable=True)
        for exchange, suffix in (("tasks", "tasks"), ("commands", "commands"), ("results", "results"), ("heartbeats", "heartbeats")):
            queue = f"{self.id}.{suffix}"
            self.channel.queue_declare(queue, durable=True)
            self.channel.queue_bind(queue, exchange, queue)
        self.endpoint = Endpoint(testbed, None, name)
        self.endpoint.id = self.id
        self.endpoint.directory.mkdir(exist_ok=True)
        self.start(testbed, name)
        testbed.endpoints.append(self.endpoint)

    def start(self, testbed, name):
        self.endpoint.process = testbed.start(
            name,
            self.endpoint.command("start", name, "--die-with-parent"),
            testbed.environment(self.endpoint.python),
            json.dumps({"amqp_creds": self.registration(), "config": json.dumps(self.config)}),
        )

    def connect(self):
        credentials = pika.PlainCredentials("guest", "guest")
        where = pika.ConnectionParameters("127.0.0.1", self.broker.port, credentials=credentials, heartbeat=0)

        def connected():
            try:
                return pika.BlockingConnection(where)
            except pika.exceptions.AMQPError:
                return None

        self.connection = until(connected, "the broker takes connections", 60)
        self.channel = self.connection.channel()

    def registration(self, password="guest"):
        url = f"amqp://guest:{password}@127.0.0.1:{self.broker.port}/%2F"

        def publish(name):
            kwargs = {"exchange": name, "routing_key": f"{self.id}.{name}", "mandatory": True, "properties": {"delivery_mode": 2}}
            return {"connection_url": url, "exchange": name, "queue": f"{self.id}.{name}", "queue_publish_kwargs": kwargs}

        return {
            "endpoint_id": self.id,
            "task_queue_info": {"connection_url": url, "queue": f"{self.id}.tasks", "exchange": "tasks"},
            "command_queue_info": {"connection_url": url, "queue": f"{self.id}.commands", "exchange": "commands"},
            "result_queue_info": publish("results"),
            "heartbeat_queue_info": publish("heartbeats"),
        }

    def submit(self, source, *args, headers=None, body=None, task=None):
        task = task or str(uuid.uuid4())
        headers = {"task_uuid": task, "function_uuid": FUNCTION} if headers is None else headers
        properties = pika.BasicProperties(headers=headers, delivery_mode=2)
        body = task_body(task, source, *args) if body is None else body
        self.channel.basic_publish("tasks", f"{self.id}.tasks", body, properties)
        return task

    def command(self, body):
        properties = pika.BasicProperties(content_type="application/json")
        self.channel.basic_publish("commands", f"{self.id}.commands", body, properties)

    def result(self, timeout=60):
        """The next result, acknowledged."""
        until_then = time.monotonic() + timeout
        while time.monotonic() < until_then:
            method, _, body = self.channel.basic_get(f"{self.id}.results", auto_ack=True)
            if method:
                message = json.loads(body[1:])
                assert message["message_type"] == "result"
                return message["data"]
            self.connection.process_data_events(0.05)
        raise AssertionError("no result came")

    def log(self):
        path = self.endpoint.directory / self.endpoint.name / "endpoint.log"
        return path.read_text() if path.exists() else ""

    def waiting(self, suffix):
        return self.channel.queue_declare(f"{self.id}.{suffix}", passive=True).method.message_count


DOUBLE = "def double(x):\n    return 2 * x\n"
SLEEP = "def sleep(path):\n    import time\n    open(path, 'w').close()\n    time.sleep(600)\n"


@pytest.fixture
def stage(testbed, rabbitmq):
    return Stage(testbed, rabbitmq, f"ep-{uuid.uuid4().hex[:6]}")


def test_a_task_and_a_heartbeat(stage):
    task = stage.submit(DOUBLE, 21)
    result = stage.result()
    assert result["task_id"] == task and result["error_details"] is None, result
    assert pickle.loads(base64.b64decode(result["data"].partition("\n")[2])) == 42
    until(lambda: stage.waiting("heartbeats") > 0, "a heartbeat comes", 30)


def test_one_connection_carries_everything(stage):
    """Three channels and the one of commands: the addresses agree."""
    until(lambda: "connected to the broker" in stage.log(), "it is connected", 60)
    until(lambda: stage.waiting("heartbeats") > 0, "a heartbeat comes", 30)
    links = [str(link.readlink()) for link in Path(f"/proc/{stage.endpoint.process.pid}/fd").iterdir()]
    sockets = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    to_broker = [line for line in lines if line[9] in sockets and int(line[2].split(":")[1], 16) == stage.broker.port]
    assert len(to_broker) == 1, to_broker


def test_told_to_end_tasks_it_ends_them(stage, tmp_path):
    began = tmp_path / "began"
    running, queued = stage.submit(SLEEP, str(began)), stage.submit(SLEEP, str(began))
    until(began.exists, "the task runs", 60)
    never_came = str(uuid.uuid4())
    stage.command(b"no JSON")
    stage.command(json.dumps({"command": "cmd_unknown", "kwargs": {}}))
    stage.command(json.dumps({"command": "farcall_cancel_tasks", "kwargs": {"task_ids": [running, queued, never_came]}}))
    ended = {stage.result()["task_id"] for _ in range(2)}
    assert ended == {running, queued}
    # What was cancelled before it came ends as it comes.
    stage.submit(SLEEP, str(began), task=never_came)
    assert stage.result()["task_id"] == never_came
    # The slot is free again, and no message is stuck.
    task = stage.submit(DOUBLE, 1)
    assert stage.result()["task_id"] == task
    assert stage.waiting("tasks") == 0 and stage.waiting("commands") == 0


@pytest.mark.parametrize(
    "what, headers, body, answered",
    [
        ("no headers and no task", {}, b"\x01nonsense", False),
        ("an id that is none", {"task_uuid": "x", "function_uuid": FUNCTION}, b"x", False),
        ("an id of the wrong type", {"task_uuid": 5, "function_uuid": FUNCTION}, b"x", False),
        ("no function", {"task_uuid": "{task}"}, None, True),
        ("a function of the wrong type", {"task_uuid": "{task}", "function_uuid": 7}, None, True),
        ("a specification that is no JSON", {"task_uuid": "{task}", "function_uuid": FUNCTION, "resource_specification": "{"}, None, True),
        ("serializers that are none", {"task_uuid": "{task}", "function_uuid": FUNCTION, "result_serializers": "x"}, None, True),
        ("an empty body", {"task_uuid": "{task}", "function_uuid": FUNCTION}, b"", True),
        ("a body over the limit", {"task_uuid": "{task}", "function_uuid": FUNCTION}, 81 << 20, True),
        ("another version of the protocol", {"task_uuid": "{task}", "function_uuid": FUNCTION}, b"\x02{}", True),
        ("a message nobody knows", {"task_uuid": "{task}", "function_uuid": FUNCTION}, b'\x01{"message_type":"x","data":{}}', True),
        ("a message of another kind", {"task_uuid": "{task}", "function_uuid": FUNCTION},
         b'\x01{"message_type":"task_cancel","data":{"task_id":"11111111-1111-4111-8111-111111111111"}}', True),
    ],
)
def test_bad_input(hardy, what, headers, body, answered):
    task = str(uuid.uuid4())
    headers = {name: value.replace("{task}", task) if isinstance(value, str) else value for name, value in headers.items()}
    # A number is a length: of a name, 81 MiB would be too much.
    body = b"\x01" + b" " * body if isinstance(body, int) else body
    hardy.submit(DOUBLE, 1, headers=headers, body=body, task=task)
    if answered:
        result = hardy.result()
        assert result["task_id"] == task and result["error_details"], (what, result)
    # The queue is not stuck, and the endpoint lives.
    good = hardy.submit(DOUBLE, 1)
    result = hardy.result()
    assert result["task_id"] == good and result["error_details"] is None, (what, result)
    until(lambda: hardy.waiting("tasks") == 0, "the queue is empty", 30)


@pytest.fixture(scope="module")
def hardy(shared_testbed, rabbitmq):
    """One endpoint that goes through all of it."""
    return Stage(shared_testbed, rabbitmq, "hardy")


def test_the_broker_is_killed_and_comes_back(testbed):
    broker = RabbitMQ()
    try:
        stage = Stage(testbed, broker, "waits")
        stage.submit(DOUBLE, 1)
        stage.result()
        broker.restart()
        stage.connect()
        task = stage.submit(DOUBLE, 2)
        # The broker may have forgotten that it gave the first result out.
        until(lambda: stage.result(120)["task_id"] == task, "the second result comes", 120)
        stage.endpoint.stop()
    finally:
        broker.stop()


class Registered(Stage):
    """An endpoint that registers with a service, which gives it the wrong password at first."""

    # What the service says no with when it is asked again.
    refuses = None

    def start(self, testbed, name):
        self.registrations = []
        stage = self

        class Service(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer({"api": "1.0.0", "min_sdk_version": "1.0.0", "min_ep_version": "1.0.0a0"})

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v2/oauth2/token":
                    token = {"access_token": "t", "scope": "s", "expires_in": 1000, "token_type": "Bearer"}
                    return self.answer(token | {"resource_server": "funcx_service", "other_tokens": []})
                stage.registrations.append(self.command)
                if stage.refuses and len(stage.registrations) > 1:
                    return self.answer({"code": "RESOURCE_LOCKED"}, stage.refuses)
                return self.answer(stage.registration("guest" if len(stage.registrations) > 2 else "wrong"))

            do_PUT = do_POST

            def answer(self, body, status=200):
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
        threading.Thread(target=self.service.serve_forever, daemon=True).start()
        directory = self.endpoint.directory / name
        directory.mkdir()
        (directory / "config.yaml").write_text(json.dumps(self.config | {"detach_endpoint": False}))
        environment = testbed.environment(
            self.endpoint.python,
            FARCALL_SERVICE_URL=f"http://127.0.0.1:{self.service.server_port}/",
            GLOBUS_COMPUTE_CLIENT_ID="00000000-0000-4000-8000-0000000000c1",
            GLOBUS_COMPUTE_CLIENT_SECRET="a secret of the test",
        )
        self.endpoint.process = testbed.start(name, self.endpoint.command("start", name), environment)


def test_refused_credentials_are_renewed(testbed, rabbitmq):
    """Nobody has to start it again: the endpoint registers until the broker accepts it."""
    stage = Registered(testbed, rabbitmq, "renews")
    task = stage.submit(DOUBLE, 1)
    assert stage.result()["task_id"] == task
    assert stage.registrations == ["POST", "PUT", "PUT"]
    log = (stage.endpoint.directory / "renews" / "endpoint.log").read_text()
    assert "registering again" in log and "guest:" not in log and "a secret of the test" not in log
    stage.endpoint.stop()
    stage.service.shutdown()


class Unwanted(Registered):
    refuses = 423


def test_an_endpoint_that_the_service_refuses_ends_in_order(testbed, rabbitmq, tmp_path):
    """The broker does not take its credentials any more, and the service gives it no new ones."""
    ran = tmp_path / "ran"
    stage = Unwanted(
        testbed, rabbitmq, "unwanted", endpoint_setup=f"echo setup >> {ran}", endpoint_teardown=f"echo teardown >> {ran}"
    )
    assert stage.endpoint.process.wait(60) == 69
    assert "no new credentials: Endpoint registration blocked." in stage.endpoint.process.output()
    assert ran.read_text() == "setup\nteardown\n"
    stage.service.shutdown()


NOTE = "def note(path):\n    open(path, 'a').write('x')\n"


def test_a_task_that_ended_is_answered_from_the_journal(testbed, stage, tmp_path):
    """Its message comes again: in the same run, and in the next."""
    noted = tmp_path / "noted"
    task = stage.submit(NOTE, str(noted))
    assert stage.result()["task_id"] == task
    for again in (False, True):
        if again:
            stage.endpoint.stop()
            stage.start(testbed, stage.endpoint.name)
        stage.submit(NOTE, str(noted), task=task)
        other = stage.submit(DOUBLE, 1)
        assert stage.result()["task_id"] == other
        until(lambda: stage.waiting("tasks") == 0, "the queue is empty", 30)
        assert noted.read_text() == "x"


def test_a_consumer_that_the_broker_ends_is_noticed(stage):
    queue = f"{stage.id}.tasks"
    until(lambda: "connected to the broker" in stage.log(), "it is connected", 60)
    stage.channel.queue_delete(queue)
    until(lambda: "the broker ended the consumer" in stage.log(), "it says so", 60)
    stage.channel.queue_declare(queue, durable=True)
    stage.channel.queue_bind(queue, "tasks", queue)
    task = stage.submit(DOUBLE, 1)
    assert stage.result()["task_id"] == task


def test_idle_after_its_tasks_it_stops_by_itself(testbed, rabbitmq, tmp_path):
    ran = tmp_path / "ran"
    stage = Stage(testbed, rabbitmq, "idle", idle_heartbeats_soft=1, endpoint_teardown=f"echo teardown >> {ran}")
    task = stage.submit(DOUBLE, 1)
    assert stage.result()["task_id"] == task
    assert stage.endpoint.process.wait(60) == 0
    assert "nothing to do for long enough; stopping" in stage.log()
    assert ran.read_text() == "teardown\n"
