"""A testbed: one temporary directory, and the programs of Farcall that a test starts in it.

    service   `farcall serve` on free ports, with one client identity
    endpoint  our `globus-compute-endpoint`, configured and started
    sdk       a script of the stock SDK, in the environment of one release

Closing a testbed stops every program, and fails if one leaves a process behind.
"""

import json
import os
import subprocess
import textwrap
import uuid
from pathlib import Path

import environments
import postgres
from processes import MARK, Process, marked, until
from rest import Refused, Rest
from terminal import Terminal

ROOT = Path(__file__).resolve().parent.parent


def binary(name):
    """A program as cargo left it; `FARCALL_BINARIES` names another directory."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    directory = Path(os.environ.get("FARCALL_BINARIES") or target / "debug")
    path = (ROOT / directory / name).resolve()
    if not path.exists():
        raise AssertionError(f"{path} does not exist: run `make build`")
    return path


class Testbed:
    def __init__(self, directory):
        self.directory = Path(directory)
        self.mark = str(uuid.uuid4())
        self.processes = []
        self.services = []
        self.endpoints = []
        self.databases = postgres.Databases()

    def environment(self, python=None, **extra):
        """What a party's environment holds: nothing of the caller's own set-up but the PATH."""
        path = os.environ["PATH"]
        if python:
            path = f"{Path(python).parent}{os.pathsep}{path}"
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        base = {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "RUST_BACKTRACE": "1", MARK: self.mark}
        if "FARCALL_LOG" in os.environ:
            base["FARCALL_LOG"] = os.environ["FARCALL_LOG"]
        return base | {name: str(value) for name, value in extra.items()}

    def start(self, name, command, environment, stdin=None, directory=None):
        process = Process(name, command, environment, directory or self.directory, stdin)
        self.processes.append(process)
        return process

    def terminal(self, command, environment, name=None):
        """Starts a program at a terminal of its own."""
        terminal = Terminal(command, environment, self.directory, name)
        self.processes.append(terminal)
        return terminal

    def service(self, name="service", settings=(), configuration=None, database=None):
        """Starts a service; `configuration` is the text of its `farcall.yaml`, `database` the URL of its PostgreSQL database.
        With FARCALL_TEST_POSTGRES in the environment, it has one on that server unless the configuration names one."""
        service = Service(self, name, settings)
        if database is None and postgres.VARIABLE in os.environ and "store:" not in (configuration or ""):
            database = self.databases.create()
        if configuration or database:
            service.data.mkdir()
            store = f"store:\n  url: {database}\n" if database else ""
            (service.data / "farcall.yaml").write_text((configuration or "") + store)
        self.services.append(service)
        service.start()
        return service

    def endpoint(self, service, name="endpoint", **options):
        endpoint = Endpoint(self, service, name, **options)
        self.endpoints.append(endpoint)
        endpoint.configure()
        endpoint.start()
        return endpoint

    def manager(self, service, template, name="manager", release="4.19.0", **options):
        manager = Manager(self, service, name, template, release, **options)
        self.endpoints.append(manager)
        manager.configure()
        manager.start()
        return manager

    def close(self):
        """Stops everybody, users before those they use."""
        complaints = []
        for party in [*reversed(self.endpoints), *reversed(self.services)]:
            try:
                party.stop()
            except Exception as complaint:
                complaints.append(str(complaint))
        for process in self.processes:
            if process.running():
                process.kill()
        self.databases.remove()
        left = marked(self.mark)
        for pid in left:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        if left:
            complaints.append(f"left behind: {left}")
        assert not complaints, "\n".join(complaints)


class Service:
    """`farcall serve` with a data directory of its own."""

    def __init__(self, testbed, name, settings=()):
        self.testbed = testbed
        self.name = name
        # Of its configuration, as `section.key=value`.
        self.settings = settings
        self.data = testbed.directory / f"{name}-data"
        self.process = None
        self.http_port = 0
        self.amqp_port = 0
        self.identity = None

    def start(self):
        """Starts it; once it has had its ports, on the same ones."""
        self.process = self.testbed.start(
            self.name,
            [
                *(binary("farcall"), "serve", "--data-dir", self.data),
                *("--http-listen", f"127.0.0.1:{self.http_port}", "--amqp-listen", f"127.0.0.1:{self.amqp_port}"),
                *(part for setting in self.settings for part in ("--set", setting)),
            ],
            self.testbed.environment(),
        )
        ready = self.process.wait_for(r"farcall is ready: http://127\.0\.0\.1:(\d+) amqp://127\.0\.0\.1:(\d+)")
        self.http_port, self.amqp_port = int(ready[1]), int(ready[2])
        if self.identity is None:
            self.identity = self.add_client("tests")

    def add_client(self, name):
        """Makes a client identity and returns its id and secret."""
        added = subprocess.run(
            [binary("farcall"), "client", "add", name, "--data-dir", self.data, "--output", "json"],
            env=self.testbed.environment(),
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert added.returncode == 0, added.stderr
        identity = json.loads(added.stdout)
        return identity["client_id"], identity["client_secret"]

    def administer(self, *arguments, stdin=None):
        """Runs a `farcall` command that administers this service, and returns what it answers."""
        done = subprocess.run(
            [binary("farcall"), *arguments, "--data-dir", self.data, "--output", "json"],
            env=self.testbed.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def add_person(self, username, password, name="Alice Liddell"):
        """Makes a person who signs in with a password, and returns their id."""
        return self.administer("user", "add", username, "--name", name, stdin=password + "\n")["id"]

    def person_environment(self, python=None):
        """What makes an unmodified SDK or endpoint ask a person to log in at this service."""
        environment = self.client_environment(python)
        del environment["GLOBUS_COMPUTE_CLIENT_ID"], environment["GLOBUS_COMPUTE_CLIENT_SECRET"]
        return environment

    def origin(self):
        return f"http://127.0.0.1:{self.http_port}"

    def rest(self, identity=None):
        return Rest(self.origin(), *(identity or self.identity))

    def client_environment(self, python=None, identity=None):
        """What makes an unmodified SDK or endpoint talk to this service.

        The SDK knows only `localhost:5000` by heart, so it reaches our port as through a proxy: tests run side by
        side.
        """
        client_id, client_secret = identity or self.identity
        return self.testbed.environment(
            python,
            GLOBUS_SDK_ENVIRONMENT="local",
            GLOBUS_SDK_SERVICE_URL_AUTH=f"http://localhost:{self.http_port}/",
            http_proxy=self.origin(),
            GLOBUS_COMPUTE_CLIENT_ID=client_id,
            GLOBUS_COMPUTE_CLIENT_SECRET=client_secret,
            GLOBUS_COMPUTE_USER_DIR=self.testbed.directory / "globus_compute",
        )

    def sdk(self, release, identity=None):
        return Sdk(self, release, identity)

    def kill(self):
        self.process.kill()

    def stop(self):
        if self.process and self.process.running():
            status = self.process.stop()
            assert status == 0, f"{self.name} left with status {status}:\n{self.process.output()}"


class Endpoint:
    """An endpoint in a configuration directory of its own, its workers on the Python of an environment.

    It is ours, or `upstream`: the one that PyPI has put into that environment.
    """

    def __init__(self, testbed, service, name, python="sdk-4.19.0", workers=2, upstream=False, engine=None, config=None, variables=None):
        self.testbed = testbed
        self.service = service
        self.name = name
        self.python = environments.python(python)
        self.program = self.python.parent / "globus-compute-endpoint" if upstream else binary("globus-compute-endpoint")
        self.engine = engine or {
            "type": "GlobusComputeEngine",
            "max_workers_per_node": workers,
            "provider": {"type": "LocalProvider", "init_blocks": 1, "min_blocks": 0, "max_blocks": 1},
        }
        self.config = config or {}
        self.variables = variables or {}
        self.directory = testbed.directory / "endpoints"
        self.process = None
        self.id = None

    def environment(self):
        return self.service.client_environment(self.python) | {"FARCALL_SERVICE_URL": self.service.origin()} | self.variables

    def command(self, *arguments):
        return [self.program, "-c", self.directory, *arguments]

    def run(self, *arguments, timeout=60):
        """Runs one command of the command line to its end."""
        return subprocess.run(
            [str(part) for part in self.command(*arguments)],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def configure(self):
        done = self.run("configure", self.name)
        assert done.returncode == 0, done.stdout + done.stderr
        config = {
            "display_name": self.name,
            "detach_endpoint": False,
            "engine": self.engine,
            **self.config,
        }
        # JSON is YAML.
        (self.directory / self.name / "config.yaml").write_text(json.dumps(config, indent=2))

    def start(self):
        """Starts it in the foreground and waits until the service calls it online."""
        self.process = self.testbed.start(self.name, self.command("start", self.name), self.environment())
        self.id = until(self._registered, f"{self.name} is registered", 60)
        until(self.online, f"{self.name} is online", 60)

    def _registered(self):
        assert self.process.running(), f"{self.name} ended:\n{self.process.output()}"
        try:
            return json.loads((self.directory / self.name / "endpoint.json").read_text())["endpoint_id"]
        except (FileNotFoundError, ValueError):
            return None

    def online(self):
        try:
            return self.service.rest().get(f"/v2/endpoints/{self.id}/status")["status"] == "online"
        except Refused:
            return False

    def kill(self):
        self.process.kill()

    def stop(self):
        if self.process and self.process.running():
            status = self.process.stop()
            assert status == 0, f"{self.name} left with status {status}:\n{self.process.output()}"


class Manager(Endpoint):
    """Upstream's endpoint of 4.10 or later: always a manager, which starts user endpoints by a template.

    As the superuser it would want an identity mapping and other users' accounts. So it runs as an ordinary user; where
    the tests run as root, as one inside a user namespace, who may still read root's files.
    """

    def __init__(self, testbed, service, name, template, release, schema=None):
        super().__init__(testbed, service, name, python=f"sdk-{release}", upstream=True)
        self.template = template
        self.schema = schema

    def command(self, *arguments):
        command = super().command(*arguments)
        if os.geteuid() == 0:
            command = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--", *command]
        return command

    def configure(self):
        done = self.run("configure", self.name)
        assert done.returncode == 0, done.stdout + done.stderr
        directory = self.directory / self.name
        # The template as it comes downloads tools from the internet.
        (directory / "user_config_template.yaml.j2").write_text(textwrap.dedent(self.template))
        if self.schema is not None:
            (directory / "user_config_schema.json").write_text(json.dumps(self.schema))


class Sdk:
    """The stock SDK of one release: runs scripts a user could have written, in an environment from PyPI."""

    def __init__(self, service, release, identity=None):
        self.service = service
        self.release = release
        self.identity = identity
        self.python = environments.python(f"sdk-{release}")
        # In place of those that lead to the service.
        self.variables = None

    def start(self, script, *arguments, **variables):
        """Starts a script. It finds `executor`, `client` and `report` of `clients/prelude.py` defined."""
        testbed = self.service.testbed
        name = f"client-{self.release}-{len(testbed.processes)}"
        path = testbed.directory / f"{name}.py"
        path.write_text("from prelude import *\n\n" + textwrap.dedent(script))
        environment = self.variables or self.service.client_environment(self.python, self.identity)
        environment["PYTHONPATH"] = str(ROOT / "tests" / "clients")
        environment["FARCALL_TEST_REPORTS"] = str(testbed.directory / f"{name}.reports")
        environment |= variables
        process = testbed.start(name, [self.python, path, *arguments], environment)
        return Script(process, Path(environment["FARCALL_TEST_REPORTS"]))

    def run(self, script, *arguments, timeout=120):
        """Runs a script to its end and returns what it reported, as a list."""
        return self.start(script, *arguments).finish(timeout)


class Script:
    """A running client script and what it reports."""

    def __init__(self, process, path):
        self.process = process
        self._path = path

    def reports(self):
        try:
            lines = self._path.read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_for_report(self, count=1, timeout=60):
        """Waits until the script has made `count` reports, and returns the last of them."""

        def reported():
            reports = self.reports()
            if len(reports) < count and not self.process.running():
                raise AssertionError(f"the script ended after reporting {reports}:\n{self.process.output()}")
            return reports if len(reports) >= count else None

        return until(reported, f"the script makes {count} reports", timeout)[count - 1]

    def finish(self, timeout=120):
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the script did not end within {timeout} s:\n{self.process.output()}") from None
        assert status == 0, f"the script left with status {status}:\n{self.process.output()}"
        return self.reports()
