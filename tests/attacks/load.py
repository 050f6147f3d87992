"""Attacks by volume: however much one client or endpoint sends, others must not wait for it."""

import json
import select
import socket
import threading
import time
import uuid

import pika
from table import attack, played_elsewhere

PAYLOAD = "5\n00\nab5\n00\ncd"
# A submit of somebody else is answered within seconds: nobody waits for the attack to be over.
PATIENCE = 10


class Victim:
    """Another identity with an endpoint of its own, which submits one task after another."""

    def __init__(self, service):
        self.rest = service.rest(service.add_client("victim"))
        self.function = function(self.rest)
        self.endpoint = registration(self.rest)["endpoint_id"]
        self.longest = 0.0

    def submit(self):
        began = time.monotonic()
        submit(self.rest, self.endpoint, self.function, 1)
        self.longest = max(self.longest, time.monotonic() - began)

    def submit_until(self, done):
        self.submit()
        while not done():
            self.submit()
        assert self.longest < PATIENCE, f"a submit took {self.longest:.1f} s"


def function(rest):
    return rest.post("/v3/functions", {"function_name": "f", "function_code": "7\n01\ngASV"})["function_uuid"]


def registration(rest):
    metadata = {"endpoint_version": "3.8.0", "hostname": "h", "local_user": "u", "endpoint_config": "engine: {}"}
    return rest.post("/v3/endpoints", {"endpoint_name": "ep", "high_assurance": False, "metadata": metadata})


def submit(rest, endpoint, function, count):
    body = {"create_queue": True, "tasks": {function: [PAYLOAD] * count}}
    return rest.post(f"/v3/endpoints/{endpoint}/submit", body)


class Played:
    """An endpoint whose AMQP side the attack plays, with the credentials of its registration."""

    def __init__(self, rest):
        told = registration(rest)
        self.id = told["endpoint_id"]
        url = told["task_queue_info"]["connection_url"]
        self.connection = pika.BlockingConnection(pika.URLParameters(url + "?heartbeat=0"))
        self.channel = self.connection.channel()
        self.persistent = pika.BasicProperties(delivery_mode=2)

    def publish(self, kind, message_type, data):
        body = b"\x01" + json.dumps({"message_type": message_type, "data": data}).encode()
        self.channel.basic_publish(kind, f"{self.id}.{kind}", body, self.persistent)

    def heartbeat(self, statuses=None, **state):
        data = {"endpoint_id": self.id, "global_state": {"heartbeat_period": 30, **state}, "task_statuses": statuses or {}}
        self.publish("heartbeats", "ep_status_report", data)

    def result(self, task):
        self.publish("results", "result", {"task_id": task, "data": "5\n00\nab"})

    def settle(self):
        """Waits until the service has confirmed one more message; what came before it on this channel is handled."""
        self.channel.confirm_delivery()
        self.heartbeat()
        self.connection.close()


def transitions(state):
    return [{"timestamp": 1_700_000_000_000_000_000, "state": state, "actor": "interchange"}]


@attack("an owner of an endpoint", "sends heartbeats that name thousands of tasks, as fast as it can")
def heartbeats_that_name_thousands_of_tasks(testbed):
    service = testbed.service()
    victim = Victim(service)
    rest = service.rest()
    endpoint = Played(rest)
    tasks = submit(rest, endpoint.id, code := function(rest), 3000)["tasks"][code]
    named = {task: transitions("running") for task in tasks}
    strangers = {str(uuid.uuid4()): transitions("running") for _ in range(20_000)}

    def flood():
        for _ in range(5):
            endpoint.heartbeat(named)
            endpoint.heartbeat(strangers)
        for n in range(5_000):
            endpoint.heartbeat(start_unix=n, posix_pid=n)
        endpoint.heartbeat(named)
        endpoint.settle()

    flooding = threading.Thread(target=flood)
    flooding.start()
    victim.submit_until(lambda: not flooding.is_alive())
    flooding.join()
    status = rest.get(f"/v2/endpoints/{endpoint.id}/status")
    assert status["status"] == "online", status


@attack("somebody with an account", "sends a large submit again whose answer was lost, while its results lie unread")
def a_submit_again_whose_results_lie_unread(testbed):
    service = testbed.service()
    victim = Victim(service)
    rest = service.rest()
    endpoint = Played(rest)
    code = function(rest)
    body = json.dumps({"create_queue": True, "tasks": {code: [PAYLOAD] * 2000}}).encode()
    path = f"/v3/endpoints/{endpoint.id}/submit"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {rest.token()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()

    def lose(after):
        """Submits, resets the connection `after` some seconds; the tasks, if they were accepted and no answer was there."""
        with socket.create_connection(("127.0.0.1", service.http_port)) as connection:
            connection.sendall(head + body)
            answered = select.select([connection], [], [], after)[0]
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        tasks = []
        for method, _, message in endpoint.channel.consume(f"{endpoint.id}.tasks", inactivity_timeout=0.5):
            if method is None:
                break
            endpoint.channel.basic_ack(method.delivery_tag)
            tasks.append(json.loads(message[1:])["data"]["task_id"])
            endpoint.result(tasks[-1])
        endpoint.channel.cancel()
        return [] if answered else tasks

    def again():
        return rest.post(path, json.loads(body))

    # Too early, and it was never sent; too late, and it was answered.
    lost = next(filter(None, (lose(0.02 * 1.5**n) for n in range(10))), [])
    answers = []
    sending = threading.Thread(target=lambda: answers.extend(again() for _ in range(2)))
    sending.start()
    victim.submit_until(lambda: not sending.is_alive())
    sending.join()
    assert all(len(answer["tasks"][code]) == 2000 for answer in answers)
    if lost:
        assert sorted(answers[0]["tasks"][code]) == sorted(lost), "the lost submit gets the ids it had"
    endpoint.connection.close()


played_elsewhere(
    "somebody with an account",
    "makes the service read all that is stored for one submit",
    "crates/store/src/statement_cost_tests.rs::a_submit_that_comes_again_does_not_cost_what_is_stored",
)
played_elsewhere(
    "somebody with an account",
    "holds the writer with a submit of very many tasks",
    "crates/store/src/tasks/large_submits/tests.rs::a_submit_of_any_size_is_written_in_bounded_steps",
)
played_elsewhere(
    "somebody with an account",
    "finds a request whose statement reads a whole table of tasks",
    "crates/store/src/query_plan_tests.rs::no_statement_reads_more_of_a_growing_table_than_it_answers",
)
played_elsewhere(
    "an owner of an endpoint",
    "has more tasks in one heartbeat than one statement writes",
    "crates/store/src/statement_cost_tests.rs::what_heartbeats_say_is_bounded_and_costs_what_it_is",
)
played_elsewhere(
    "an owner of an endpoint",
    "registers again and again without a connection",
    "crates/store/src/statement_cost_tests.rs::registrations_whose_answers_were_lost_do_not_pile_up",
)
