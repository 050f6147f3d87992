"""Sends the same start commands to several managers over queues of a real RabbitMQ, and records what each does: the notices that
it sends, and what the programs that it starts are given.

A subject is a manager that root runs: ours, or upstream's of a release. It registers at our service, through a proxy that
names the queues of RabbitMQ in the answer. In place of user endpoints a program writes down what it got.
"""

import http.server
import json
import re
import threading
import time
import urllib.error
import urllib.request
import uuid

import pika
from processes import until

PERSON = "00000000-0000-4000-8000-0000000000a1"
LINKED = "00000000-0000-4000-8000-0000000000a2"
NAMES = uuid.UUID("7a000000-0000-4000-8000-000000000001")
LAST, UNTIMED = "the last one", "no timestamp"
MAPPING = [
    {
        "DATA_TYPE": "expression_identity_mapping#1.0.0",
        "mappings": [{"source": "{username}", "match": "(.*)@example.org", "output": "{0}"}],
    }
]
TEMPLATE = """\
engine:
  type: GlobusComputeEngine
  account: {{ account|default("none") }}
  parts: {{ parts|default([]) }}
runtime: {{ user_runtime.python_version|default("unknown") }}
"""
SCHEMA = {"type": "object", "properties": {"account": {"type": "string"}}}
ENVIRONMENT = {"SITE": "--additional_flag", "NUMBER": 5}

# In the place of a user endpoint.
PROGRAM = """\
#!/usr/bin/python3
import json, os, signal, sys
mask = os.umask(0o077)
record = {
    "arguments": sys.argv[1:],
    "environment": {name: value for name, value in os.environ.items() if name not in ("LC_CTYPE", "_")},
    "document": json.load(sys.stdin),
    "directory": os.getcwd(),
    "umask": mask,
    "ids": [os.getuid(), os.geteuid(), os.getgid(), os.getegid(), sorted(os.getgroups())],
    "leads a session": os.getsid(0) == os.getpid(),
    "below the manager": os.getppid() == int(open(os.path.dirname(os.path.abspath(__file__)) + "/manager").read()),
}
path = f"{os.path.expanduser('~')}/{sys.argv[2]}"
with open(path + ".part", "w") as file:
    json.dump(record, file)
os.rename(path + ".part", path + ".json")
signal.pause()
"""


class Command:
    """A start command. `body`: changes to a good one; `None` removes a member, and text replaces it all."""

    def __init__(self, title, body=None, age=0, content_type="application/json", **kwargs):
        self.name = title
        self.body = {} if body is None else body
        self.kwargs = kwargs
        self.age = age
        self.content_type = content_type
        self.endpoint = str(uuid.uuid5(NAMES, title))

    def message(self, manager, credentials):
        """The body and properties of the message."""
        known = {"sub": PERSON, "id": PERSON, "username": "alicia@example.org", "status": "used", "email": "a@example.org"}
        other = known | {"sub": LINKED, "id": LINKED, "username": "alicia@elsewhere.org"}
        kwargs = {
            "name": f"uep.{manager}.{self.endpoint}",
            "user_opts": {},
            "user_runtime": {"globus_compute_sdk_version": "3.8.0", "python_version": "3.11.7 (main)"},
            "amqp_creds": credentials,
        }
        command = {
            "command": "cmd_start_endpoint",
            "globus_username": "alicia@example.org",
            "globus_effective_identity": PERSON,
            "globus_identity_set": [known, other],
            "args": [],
            "kwargs": without_none(kwargs | self.kwargs),
        }
        body = self.body if isinstance(self.body, str) else json.dumps(without_none(command | self.body))
        timestamp = None if self.age is None else int(time.time()) - self.age
        properties = pika.BasicProperties(
            content_type=self.content_type, content_encoding="utf-8", timestamp=timestamp, delivery_mode=2
        )
        return body.replace("{manager}", manager), properties


def without_none(members):
    return {name: value for name, value in members.items() if value is not None}


def somebody(username):
    identity = {"sub": PERSON, "id": PERSON, "username": username, "status": "used"}
    return {"globus_username": username, "globus_identity_set": [identity]}


COMMANDS = [
    Command("a good one"),
    Command("options", user_opts={"account": 'a "b" \u00e9'}),
    Command("options of every kind", user_opts={"account": "x", "parts": ["a', 'b", 5, True, {"k: v": 1.5}]}),
    Command("further arguments", {"args": ["--more", "1"]}),
    Command("no runtime", user_runtime=None),
    Command("no options", user_opts=None),
    Command("members nobody knows", {"surprise": 1}),
    Command("too old", age=181),
    Command("of the future", age=-190),
    Command("no JSON", "nonsense"),
    Command("no object", "[]"),
    Command("another content type", content_type="text/plain"),
    *(Command(f"no {key}", {key: None}) for key in ("globus_effective_identity", "globus_identity_set", "globus_username")),
    Command("nobody maps", somebody("stranger@elsewhere.org")),
    Command("no such account", somebody("no-such-account@example.org")),
    Command("the superuser", somebody("root@example.org")),
    Command("no command", {"command": None}),
    Command("an unknown command", {"command": "cmd_something"}),
    Command("a command that is no name", {"command": "cmd_start_endpoint; reboot"}),
    Command("a private name", {"command": "__init__"}),
    Command("no name", name=None),
    Command("an empty name", name=""),
    Command("an option that the schema refuses", user_opts={"account": 5}),
    Command("a reserved word", user_opts={"parent_config": 1}),
    Command("a reserved word of 3.8", user_opts={"user_runtime": 1}),
]


# What can't be read has nobody to answer to.
SILENT = ("no JSON", "no object", "another content type")


class Proxy:
    """Passes requests to our service, and in the answer to a registration names the queues of RabbitMQ."""

    def __init__(self, service, declare, url):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = re.sub(r"^http://[^/]+", "", self.path)
                skipped = ("host", "connection", "accept-encoding", "content-length", "proxy-connection")
                headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
                request = urllib.request.Request(service.origin() + path, body or None, headers, method=self.command)
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                try:
                    with opener.open(request, timeout=60) as answer:
                        status, text = answer.status, answer.read()
                except urllib.error.HTTPError as error:
                    status, text = error.code, error.read()
                if status == 200 and re.fullmatch(r"/v3/endpoints(/[0-9a-f-]{36})?", path) and self.command != "GET":
                    registration = json.loads(text)
                    declare(registration["endpoint_id"])
                    for part in registration.values():
                        if isinstance(part, dict) and "connection_url" in part:
                            part["connection_url"] = url
                    text = json.dumps(registration).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Recorder:
    def __init__(self, service, broker):
        self.where = pika.ConnectionParameters(
            "127.0.0.1", broker.port, credentials=pika.PlainCredentials("guest", "guest"), heartbeat=0
        )
        self.url = f"amqp://guest:guest@127.0.0.1:{broker.port}/%2F"
        self.channel = pika.BlockingConnection(self.where).channel()
        self.proxy = Proxy(service, self.declare, self.url)

    def declare(self, endpoint):
        """Makes the exchanges, and the queues of an endpoint. From any thread."""
        with pika.BlockingConnection(self.where) as connection:
            channel = connection.channel()
            for name, kind in {"commands": "direct", "heartbeats": "topic"}.items():
                channel.exchange_declare(name, kind, durable=True)
                channel.queue_declare(f"{endpoint}.{name}", durable=True)
                channel.queue_bind(f"{endpoint}.{name}", name, f"{endpoint}.{name}")

    def close(self):
        self.proxy.close()
        self.channel.connection.close()

    def credentials(self, endpoint):
        def target(name):
            queue = f"{endpoint}.{name}"
            kwargs = {"exchange": name, "routing_key": queue, "mandatory": True, "properties": {"delivery_mode": 2}}
            return {"connection_url": self.url, "queue": queue, "exchange": name, "queue_publish_kwargs": kwargs}

        return {
            "endpoint_id": endpoint,
            "task_queue_info": {"connection_url": self.url, "queue": f"{endpoint}.tasks", "exchange": "tasks"},
            "result_queue_info": target("results"),
            "heartbeat_queue_info": target("heartbeats"),
        }

    def record(self, subject, home):
        """Starts the manager, gives it the commands, and stops it. By command: the notices, and what was started."""
        subject.start()
        (subject.programs / "manager").write_text(str(subject.process.pid))
        # The first command comes twice: the second finds its user endpoint running.
        for command in (*COMMANDS, COMMANDS[0], last := Command(LAST, somebody("stranger@elsewhere.org"))):
            self.send(command, subject)
        found = {command.name: [] for command in COMMANDS}
        until(lambda: self.notices(last), f"{subject.name} answers the last command", 120)
        # Launches and notices are processes of their own: they come when they come.
        end = time.monotonic() + 60
        while time.monotonic() < end and not all([self.answered(command, found, home, subject) for command in COMMANDS]):
            time.sleep(0.1)
        # Upstream's 3.8.0 does not survive it, and 4.19.0 says nothing.
        found[UNTIMED] = []
        self.send(untimed := Command(UNTIMED, age=None), subject)
        end = time.monotonic() + 30
        while time.monotonic() < end and not self.answered(untimed, found, home, subject) and subject.process.running():
            time.sleep(0.1)
        found["it lives"] = subject.process.running()
        subject.process.stop(grace=60)
        for command in COMMANDS:
            self.answered(command, found, home, subject)
        return found

    def send(self, command, subject):
        self.declare(command.endpoint)
        body, properties = command.message(subject.id, self.credentials(command.endpoint))
        self.channel.basic_publish("commands", f"{subject.id}.commands", body, properties)

    def answered(self, command, found, home, subject):
        got = found[command.name]
        got += [("notice", notice.replace(subject.id, "<manager>")) for notice in self.notices(command)]
        path = home / f"uep.{subject.id}.{command.endpoint}.json"
        if path.exists():
            got.append(("started", json.loads(path.read_text().replace(subject.id, "<manager>"))))
            path.unlink()
            # These are another's each time.
            document = got[-1][1]["document"]
            document["ep_info"]["posix_ppid"] = document["ep_info"]["posix_ppid"] == subject.process.pid
            if "enckey" in document:
                document["enckey"] = "<key>"
        return bool(got) or command.name in SILENT

    def notices(self, command):
        taken = []
        while True:
            method, properties, body = self.channel.basic_get(f"{command.endpoint}.heartbeats", auto_ack=True)
            if method is None:
                return taken
            message = json.loads(body[1:])
            assert message["message_type"] == "ep_status_report" and message["data"]["endpoint_id"] == command.endpoint
            # The times of a command that is too old.
            taken.append(re.sub(r"\d{10} \([^)]*\)", "<time>", json.dumps(message["data"]["global_state"], sort_keys=True)))


def prepared(manager, recorder, programs):
    """The manager with the files of this record, and the program in place of user endpoints."""

    class Subject(manager.__class__):
        def environment(self):
            origin = f"http://127.0.0.1:{recorder.proxy.port}"
            auth = f"http://localhost:{recorder.proxy.port}/"
            changed = {"http_proxy": origin, "FARCALL_SERVICE_URL": origin, "GLOBUS_SDK_SERVICE_URL_AUTH": auth}
            return super().environment() | changed

        def configure(self):
            super().configure()
            for name, content in (("mapping.json", MAPPING), ("user_config_schema.json", SCHEMA)):
                (self.home / name).write_text(json.dumps(content))
            (self.home / "user_config_template.yaml.j2").write_text(TEMPLATE)
            environment = ENVIRONMENT | {"PATH": f"{programs}:/usr/bin:/bin"}
            (self.home / "user_environment.yaml").write_text(json.dumps(environment))

        def online(self):
            declared = recorder.channel.queue_declare(f"{self.id}.commands", passive=True)
            return declared.method.consumer_count == 1

    manager.__class__ = Subject
    manager.programs = programs
    (programs / "globus-compute-endpoint").write_text(PROGRAM)
    (programs / "globus-compute-endpoint").chmod(0o755)
    manager.configure()
    return manager
