"""Credentials that the broker takes back, and a service that gives new ones, late ones, or none."""

import http.server
import json
import threading

import pytest
from ledger import CONFIG, CONNECTED, Ledger
from processes import until
from rabbitmq import RabbitMQ

IN_THE_WAY = {"code": "IN_THE_WAY", "message": "the test is in the way"}


class Registered(Ledger):
    """An endpoint that registers with a service, played here: `refusals` are the statuses it answers registrations with
    before it answers well again."""

    def start(self):
        self.serve()
        self.run()
        return self

    def serve(self):
        self.asked, self.refusals = [], []
        ledger = self

        class Service(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(200, {"api": "1.0.0", "min_sdk_version": "1.0.0", "min_ep_version": "1.0.0a0"})

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v2/oauth2/token":
                    token = {"access_token": "t", "scope": "s", "expires_in": 1000, "token_type": "Bearer"}
                    return self.answer(200, token | {"resource_server": "funcx_service", "other_tokens": []})
                ledger.asked.append(self.command)
                if ledger.refusals:
                    return self.answer(ledger.refusals.pop(0), IN_THE_WAY)
                return self.answer(200, ledger.registration())

            do_PUT = do_POST

            def answer(self, status, body):
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
        directory = self.endpoint.directory / self.name
        directory.mkdir()
        (directory / "config.yaml").write_text(json.dumps(CONFIG | {"detach_endpoint": False}))

    def run(self):
        environment = self.testbed.environment(
            self.endpoint.python,
            FARCALL_SERVICE_URL=f"http://127.0.0.1:{self.service.server_port}/",
            GLOBUS_COMPUTE_CLIENT_ID="00000000-0000-4000-8000-0000000000c1",
            GLOBUS_COMPUTE_CLIENT_SECRET="a secret of the test",
        )
        self.connections = self.log().count(CONNECTED)
        self.endpoint.process = self.testbed.start(self.name, self.endpoint.command("start", self.name), environment)


def revoke(ledger):
    """A new password, and no connection left that had the old one."""
    ledger.broker.control("change_password", ledger.user, ledger.password + "-new")
    ledger.broker.control("close_all_connections", "the credentials were revoked")
    ledger.connect()


@pytest.fixture
def broker():
    broker = RabbitMQ()
    for arguments in (("add_user", "endpoint", "first"), ("set_permissions", "endpoint", "", ".*", ".*")):
        broker.control(*arguments)
    yield broker
    broker.stop()


def test_revoked_while_tasks_run(testbed, broker):
    """Four endpoints at once: one gets new credentials, one gets them once its service has recovered, one is refused, and
    one, started by a manager, has nobody to ask. Who can't go on stops in order and goes on after the next start."""
    renewed = Registered(testbed, broker, "renewed", user="endpoint", password="first").start()
    patient = Registered(testbed, broker, "patient", user="endpoint", password="first").start()
    refused = {
        status: Registered(testbed, broker, f"refused-{status}", user="endpoint", password="first").start()
        for status in (403, 404, 409, 423)
    }
    managed = Ledger(testbed, broker, "managed", user="endpoint", password="first").start()
    everybody = [renewed, patient, *refused.values(), managed]
    for ledger in everybody:
        ledger.give(30, seconds=0.3)
    for ledger in everybody:
        until(lambda: ledger.begun(), f"tasks of {ledger.name} run", 60)
    patient.refusals = [503, 500, 502]
    for status, ledger in refused.items():
        ledger.refusals = [status]
    revoke(renewed)
    for ledger in everybody[1:]:
        ledger.connect()
    for ledger in everybody:
        ledger.password += "-new"
        ledger.give(5)

    for status, ledger in refused.items():
        assert ledger.endpoint.process.wait(60) == 0
        assert f"no new credentials: " in ledger.log() and "the test is in the way" in ledger.log(), ledger.log()
        assert ledger.waiting("tasks") > 0
        ledger.run()
    assert managed.endpoint.process.wait(60) == 0
    assert "giving up on the broker" in managed.log() and "AuthenticationRefused" in managed.log()
    managed.start()
    for ledger in everybody:
        outcomes = ledger.close()
        lost = [text for code, text in outcomes.values() if code]
        # An orderly stop gives what runs its grace; whoever went on has lost nothing.
        assert all("ManagerLost" in text or "WorkerLost" in text for text in lost), lost
        assert not lost or ledger not in (renewed, patient)
        for secret in ("first", "first-new", "a secret of the test"):
            assert f":{secret}@" not in ledger.log() and "a secret" not in ledger.log()
    assert len(patient.asked) == 5 and "registering again" in patient.log(), patient.asked


def test_refused_at_the_start(testbed, rabbitmq):
    """A clear word for each refusal; the same command works once the service does."""
    ledger = Registered(testbed, rabbitmq, "starts")
    blocked = "Endpoint registration blocked.  ["
    table = {403: (1, "code: IN_THE_WAY"), 404: (69, blocked), 409: (69, blocked), 423: (69, blocked), 500: (1, "500"), 503: (1, "503")}
    ledger.serve()
    for status, (exit_status, text) in table.items():
        # Whoever asks again by itself is refused again.
        ledger.refusals = [status] * 20
        ledger.run()
        left = ledger.endpoint.process.wait(90)
        said = ledger.endpoint.process.output()
        assert left == exit_status and text in said and "the test is in the way" in said, (status, left, said)
        assert not (ledger.endpoint.directory / "starts" / "daemon.pid").exists()
    ledger.refusals = []
    ledger.run()
    ledger.give(3)
    assert all(code is None for code, _ in ledger.close().values())
