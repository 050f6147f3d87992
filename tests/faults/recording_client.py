"""A client that records, while the service's database breaks, which submits were accepted and which results came.

It submits small batches, each with an idempotency key, and sends a batch again until it is accepted. It consumes the
results of its task group all the while. A real endpoint runs the tasks.
"""

import base64
import json
import pickle
import threading
import time
import uuid
from collections import Counter
from http.client import HTTPConnection, HTTPException

import pika
from processes import until

# It tells that it begins in one short write: whole or absent, whoever is killed.
WORK = """def work(marks, key):
    import os
    with open(os.path.join(marks, str(os.getpid())), "a") as begun:
        begun.write(key + "\\n")
    return "value of " + key
"""
BATCH = 5
PAUSE = 0.08
# No request may hang: the service answers, or says that it can't.
LONGEST = 30


def packed(*buffers):
    return "".join(f"{len(buffer)}\n{buffer}" for buffer in buffers)


def value(data):
    """A result as the worker packed it."""
    return pickle.loads(base64.b64decode(data.partition("\n")[2]))


class RecordingClient:
    """One user's tasks. `clean()` compares what was accepted, what ran, and what came back."""

    def __init__(self, testbed, service, endpoint):
        self.service = service
        self.endpoint = endpoint
        self.rest = service.rest()
        self.marks = testbed.directory / "marks"
        self.marks.mkdir()
        code = {"function_name": "work", "function_code": packed(f"st\nwork:{WORK}")}
        self.function = self.rest.post("/v3/functions", code)["function_uuid"]
        self.group = str(uuid.uuid4())
        self.token = self.rest.token()
        # task -> key of the call
        self.accepted = {}
        # task -> results that came
        self.results = {}
        self.statuses = Counter()
        self.longest = 0.0
        self.complaints = []
        self._submitted = threading.Event()
        self._stopped = threading.Event()
        self._threads = []

    def __enter__(self):
        self._submit()
        self._start(self._submit_on)
        self._start(self._consume)
        return self

    def __exit__(self, *_):
        self._submitted.set()
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)

    def _start(self, work):
        def run():
            try:
                work()
            except BaseException as error:
                self.complaints.append(f"{work.__name__}: {error!r}")

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    # Submits.

    def _submit_on(self):
        while not self._submitted.is_set():
            self._submit()
            time.sleep(PAUSE)

    def _submit(self):
        """One batch, sent until it is accepted."""
        keys = [str(uuid.uuid4()) for _ in range(BATCH)]
        calls = [packed(f"11\n{json.dumps([str(self.marks), key])}", "11\n{}") for key in keys]
        body = {"create_queue": True, "task_group_id": self.group, "tasks": {self.function: calls}}
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "Idempotency-Key": keys[0],
        }
        while True:
            began = time.monotonic()
            try:
                status, retry_after, answer = self._post(json.dumps(body), headers)
            except (OSError, HTTPException) as error:
                # Only a service that is down answers nothing.
                # (One that starts waits for the lock before it listens.)
                down = isinstance(error, ConnectionRefusedError) or not self.service.process.running()
                assert down, f"a submit got no answer: {error!r}"
                status, retry_after = "service down", 0.1
            self.statuses[status] += 1
            self.longest = max(self.longest, time.monotonic() - began)
            if status == 200:
                tasks = answer["tasks"][self.function]
                assert len(set(tasks)) == len(keys) and not set(tasks) & set(self.accepted), "ids that others have"
                self.accepted |= zip(tasks, keys)
                return
            assert status in ("service down", 503), f"a submit was answered with {status}: {answer}"
            assert retry_after is not None, f"a submit was answered with {status} and no Retry-After: {answer}"
            # A client in a hurry.
            time.sleep(min(float(retry_after), 0.2))

    def _post(self, body, headers):
        connection = HTTPConnection("127.0.0.1", self.service.http_port, timeout=LONGEST)
        try:
            connection.request("POST", f"/v3/endpoints/{self.endpoint.id}/submit", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, answer.getheader("Retry-After"), json.loads(text or b"null")
        finally:
            connection.close()

    # Results.

    def _consume(self):
        while not self._stopped.is_set():
            process = self.service.process
            try:
                self._consume_once()
            except (pika.exceptions.AMQPError, OSError) as error:
                # One that is killed ends a moment after its connections.
                time.sleep(1)
                starting = isinstance(error, ConnectionRefusedError)
                same = self.service.process is process and not starting
                if same and process.running() and not self._stopped.is_set():
                    self.complaints.append(f"the connection for results was lost: {error!r}")
                    return
                time.sleep(0.1)

    def _consume_once(self):
        where = self._connection()
        connection = pika.BlockingConnection(pika.URLParameters(where["connection_url"] + "?heartbeat=0"))
        channel = connection.channel()
        queue = where["queue_prefix"] + self.group
        for method, _, body in channel.consume(queue, inactivity_timeout=0.1):
            if method is not None:
                data = json.loads(body[1:])["data"]
                self.results.setdefault(data["task_id"], []).append((data.get("error_details"), data["data"]))
                channel.basic_ack(method.delivery_tag)
            if self._stopped.is_set():
                connection.close()
                return

    def _connection(self):
        def asked():
            try:
                return self.rest.get("/v2/get_amqp_result_connection_url")
            except Exception:
                return None

        return until(asked, "the service gives an address for results", 60)

    # What was recorded.

    def flows(self, timeout=20, tasks=20):
        """Waits until new submits are accepted and new results come: the service has recovered by itself. How long it took."""
        began = time.monotonic()
        accepted = len(self.accepted)

        def flowing():
            assert not self.complaints, self.complaints
            new = list(self.accepted)[accepted:]
            return sum(task in self.results for task in new) >= tasks

        until(flowing, f"{tasks} new tasks are answered; {dict(self.statuses)}, {len(self.accepted)} accepted", timeout)
        return time.monotonic() - began

    def clean(self, timeout=60, redelivered=False):
        """Stops submitting, waits for what is open, and compares: each accepted task was answered once with its own value,
        began once, and the service says the same. `redelivered`: a result whose acknowledgement was lost may come twice."""
        self._submitted.set()
        self._threads[0].join(60)
        until(lambda: self.complaints or set(self.accepted) <= set(self.results), f"{len(self.accepted)} results", timeout)
        # One more that would be one too many.
        time.sleep(0.3)
        self.__exit__()
        assert not self.complaints, self.complaints
        assert set(self.results) == set(self.accepted), "results of tasks that were never accepted"
        for task, came in self.results.items():
            assert len(came) == 1 or redelivered, f"{task} was answered {len(came)} times"
            for error, data in came:
                assert error is None and value(data) == f"value of {self.accepted[task]}", (task, error, data)
        begun = Counter(line for file in self.marks.iterdir() for line in file.read_text().splitlines())
        assert begun == Counter(self.accepted.values()), (begun - Counter(self.accepted.values()), len(self.accepted) - len(begun))
        tasks = list(self.accepted)
        for first in range(0, len(tasks), 1000):
            told = self.rest.post("/v2/batch_status", {"task_ids": tasks[first : first + 1000]})["results"]
            assert {status["status"] for status in told.values()} == {"success"}, Counter(it["status"] for it in told.values())
        counted = until(self._settled, "the service counts no open task", 20)
        assert (counted["failed"], counted["succeeded"]) == (0, len(tasks)), (counted, len(tasks))
        print(f"{len(tasks)} tasks, answers {dict(self.statuses)}, longest {self.longest:.1f} s")

    def _settled(self):
        tasks = self.rest.get(f"/v2/endpoints/{self.endpoint.id}/status")["farcall"]["tasks"]
        return tasks if tasks["waiting"] == tasks["taken"] == 0 else None
