"""Causes every problem of the troubleshooting page, and compares the message with the page."""

import json
import re
import socket
import subprocess
import time

import environments
import guide_blocks
import pytest
from certificate_authority import private_service
from processes import until
from testbed import ROOT, Endpoint, binary

PAGE = ROOT / "docs" / "guide" / "troubleshooting.md"
SYMPTOMS = {block.options["symptom"]: block for block in guide_blocks.blocks(PAGE) if "symptom" in block.options} if PAGE.exists() else {}


@pytest.fixture(scope="module")
def endpoint(shared_testbed, service):
    return shared_testbed.endpoint(service, "cluster")


class Somebody:
    """At a terminal, with a home of their own and nothing in the environment."""

    def __init__(self, testbed, service, endpoint, directory):
        self.testbed = testbed
        self.service = service
        self.endpoint = endpoint
        self.directory = directory
        self.python = environments.python("sdk-4.19.0")

    def run(self, program, *arguments, **variables):
        """What a program of ours prints, to whichever of its outputs."""
        environment = self.testbed.environment() | {"GLOBUS_COMPUTE_USER_DIR": str(self.directory / "endpoints")}
        done = subprocess.run(
            [str(word) for word in (binary(program), *arguments)],
            env=environment | {name: str(value) for name, value in variables.items()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.stdout

    def farcall(self, *arguments, **variables):
        return self.run("farcall", *arguments, **variables)

    def compute(self, *arguments, **variables):
        return self.run("globus-compute-endpoint", *arguments, **variables)

    def there(self, identity=None):
        """The variables of somebody who has set up everything."""
        client_id, secret = identity or self.service.identity
        return {"FARCALL_SERVICE_URL": self.service.origin(), "GLOBUS_COMPUTE_CLIENT_ID": client_id, "GLOBUS_COMPUTE_CLIENT_SECRET": secret}

    def configured(self, text="engine: {type: GlobusComputeEngine}\n", name="cluster"):
        directory = self.directory / "endpoints" / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.yaml").write_text(text)
        return name

    def script(self, text, *arguments, endpoint=None, identity=None, python=None):
        """What a script with the stock SDK prints."""
        path = self.directory / "script.py"
        path.write_text(text)
        done = subprocess.run(
            [str(python or self.python), str(path), (endpoint or self.endpoint).id, *arguments],
            env=self.service.client_environment(self.python, identity),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=90,
        )
        return done.stdout

    def task(self, function, **options):
        """What is printed when a function, written as text, is run on an endpoint."""
        return self.script(CALL.replace("FUNCTION", function), **options)


CALL = """
import sys

from globus_compute_sdk import Client, Executor

FUNCTION

with Executor(endpoint_id=sys.argv[1]) as executor:
    print(executor.submit(function).result(timeout=60))
"""


@pytest.fixture
def somebody(shared_testbed, service, endpoint, tmp_path):
    return Somebody(shared_testbed, service, endpoint, tmp_path)


def symptom(function):
    """A test that compares what `function` returns with what the page shows under its name."""

    def test(somebody):
        printed = function(somebody)
        assert function.__name__ in SYMPTOMS, f"not on the page:\n{printed}"
        block = SYMPTOMS[function.__name__]
        assert guide_blocks.shows(printed, block.text, {}), f"{block} shows\n{block.text}\nand this is printed:\n{printed}"

    KNOWN.add(function.__name__)
    globals()[f"test_{function.__name__}"] = test
    return function


KNOWN = set()


def test_every_symptom_of_the_page_is_here():
    assert set(SYMPTOMS) == KNOWN


# The client.


@symptom
def another_service(somebody):
    environment = somebody.testbed.environment(somebody.python) | {"GLOBUS_COMPUTE_USER_DIR": str(somebody.directory), "COLUMNS": "4000"}
    terminal = somebody.testbed.terminal([somebody.python, "-c", "from globus_compute_sdk import Client; Client()"], environment)
    terminal.read("Authorization Code here")
    # That service would be asked once somebody types a code.
    terminal.kill()
    return terminal.output()


@symptom
def nobody_listens(somebody):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        environment = somebody.service.client_environment(somebody.python) | {"http_proxy": address, "GLOBUS_COMPUTE_USER_DIR": str(somebody.directory)}
        environment["GLOBUS_SDK_SERVICE_URL_AUTH"] = address + "/"
        code = "from globus_compute_sdk import Client; Client().get_endpoints()"
        done = subprocess.run([somebody.python, "-c", code], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90)
    return done.stderr


@symptom
def wrong_secret(somebody):
    client_id, _ = somebody.service.identity
    return somebody.script("from globus_compute_sdk import Client\nClient().get_endpoints()\n", identity=(client_id, "mistyped"))


@symptom
def no_such_endpoint(somebody):
    stranger = somebody.service.add_client("stranger")
    return somebody.task("def function():\n    return 1\n", identity=stranger)


@symptom
def offline(somebody):
    endpoint = Endpoint(somebody.testbed, somebody.service, "sleeper")
    somebody.testbed.endpoints.append(endpoint)
    endpoint.configure()
    endpoint.start()
    endpoint.stop()
    return somebody.script("import sys\nfrom globus_compute_sdk import Client\nprint(Client().get_endpoint_status(sys.argv[1]))\n", endpoint=endpoint)


@symptom
def import_outside(somebody):
    return somebody.task("import math\n\ndef function():\n    return math.sqrt(4)\n\nfunction.__globals__.pop('math')\n")


@symptom
def missing_package(somebody):
    return somebody.task("def function():\n    import numpy\n    return numpy.zeros(1)\n")


@symptom
def payload_too_large(somebody):
    return somebody.script(
        "import sys\nfrom globus_compute_sdk import Executor\n\ndef function(text):\n    return len(text)\n\n"
        "with Executor(endpoint_id=sys.argv[1]) as executor:\n    print(executor.submit(function, 'x' * (70 << 20)).result(timeout=60))\n"
    )


@symptom
def result_too_large(somebody):
    return somebody.task("def function():\n    return 'x' * (11 << 20)\n")


@symptom
def generator_returned(somebody):
    return somebody.task("def function():\n    return (n for n in range(3))\n")


@symptom
def worker_lost(somebody):
    return somebody.task("def function():\n    import os\n    os.kill(os.getpid(), 9)\n")


@symptom
def manager_lost(somebody):
    endpoint = Endpoint(somebody.testbed, somebody.service, "killed")
    somebody.testbed.endpoints.append(endpoint)
    endpoint.configure()
    endpoint.start()
    begun = somebody.directory / "begun"
    text = CALL.replace("FUNCTION", f"def function():\n    import time\n    open({str(begun)!r}, 'w').close()\n    time.sleep(60)\n")
    path = somebody.directory / "sleep.py"
    path.write_text(text)
    client = somebody.testbed.start("client", [somebody.python, path, endpoint.id], somebody.service.client_environment(somebody.python))
    until(begun.exists, "the task runs")
    endpoint.kill()
    endpoint.start()
    client.wait(60)
    endpoint.stop()
    return client.output()


@symptom
def other_python(somebody):
    endpoint = Endpoint(somebody.testbed, somebody.service, "other", engine={"type": "GlobusComputeEngine", "max_workers_per_node": 1})
    somebody.testbed.endpoints.append(endpoint)
    endpoint.configure()
    endpoint.start()
    # As if the function came from there: the service tells workers which Python a function was registered from.
    printed = somebody.script(OTHER, endpoint=endpoint)
    endpoint.stop()
    return printed


OTHER = """
import sys

from globus_compute_sdk import Client, Executor
import platform

platform.python_version = lambda: "3.9.1"


def function():
    return 1


with Executor(endpoint_id=sys.argv[1]) as executor:
    print(executor.submit(function).result(timeout=60))
"""


@symptom
def worker_init_fails(somebody):
    # It fails when the task is there.
    submitted = somebody.directory / "submitted"
    init = f"until [ -e {submitted} ]; do sleep 0.1; done; sleep 3; echo 'module: no such module' >&2; exit 3"
    engine = {"type": "GlobusComputeEngine", "max_workers_per_node": 1, "provider": {"type": "LocalProvider", "worker_init": init}}
    endpoint = Endpoint(somebody.testbed, somebody.service, "unready", engine=engine)
    somebody.testbed.endpoints.append(endpoint)
    endpoint.configure()
    endpoint.start()
    return somebody.script(SUBMITTED, str(submitted), endpoint=endpoint)


SUBMITTED = """
import sys
import time

from globus_compute_sdk import Executor

with Executor(endpoint_id=sys.argv[1]) as executor:
    future = executor.submit(print)
    while future.task_id is None:
        time.sleep(0.05)
    open(sys.argv[2], "w").close()
    print(future.result(timeout=60))
"""


# The endpoint.


@symptom
def nowhere(somebody):
    return somebody.compute("start", somebody.configured(), FARCALL_SITE_FILE=somebody.directory / "none")


@symptom
def nobody_logged_in(somebody):
    return somebody.compute("start", somebody.configured(), FARCALL_SERVICE_URL=somebody.service.origin())


@symptom
def service_unreachable(somebody):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        variables = somebody.there() | {"FARCALL_SERVICE_URL": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        return somebody.compute("start", somebody.configured(), **variables)


@symptom
def misspelt(somebody):
    return somebody.compute("check", somebody.configured("engine:\n  type: GlobusComputeEngine\n  max_worker_per_node: 4\n"))


@symptom
def batch_provider(somebody):
    return somebody.compute("start", somebody.configured("engine:\n  type: GlobusComputeEngine\n  provider:\n    type: SlurmProvider\n"), **somebody.there())


@symptom
def somebody_elses(somebody):
    stranger = somebody.service.add_client("other")
    name = somebody.configured()
    (somebody.directory / "endpoints" / name / "endpoint.json").write_text(json.dumps({"endpoint_id": somebody.endpoint.id}))
    return somebody.compute("start", name, **somebody.there(stranger))


@symptom
def already_active(somebody):
    return subprocess.run(
        [str(word) for word in somebody.endpoint.command("start", somebody.endpoint.name)],
        env=somebody.endpoint.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    ).stderr.replace(somebody.endpoint.name, "cluster")


@symptom
def throttled(somebody):
    """As the Executor comes; each call is awaited before the next."""
    return somebody.script(
        CALL.replace("print(executor.submit(function).result(timeout=60))", "[executor.submit(function).result(timeout=60) for _ in range(5)]").replace(
            "FUNCTION", "def function():\n    return 1"
        )
    )


@pytest.mark.long
def test_two_who_collect_one_group_share_its_results(service, endpoint, tmp_path):
    """And who comes when the tasks have ended has every result."""
    sdk = service.sdk("4.19.0")
    [group] = sdk.run(
        """
        import os, sys, time

        def wait_for(path):
            import pathlib, time
            while not pathlib.Path(path).exists():
                time.sleep(0.05)
            return 1

        ex = executor(sys.argv[1])
        futures = [ex.submit(wait_for, sys.argv[2]) for _ in range(8)]
        while not all(future.task_id for future in futures):
            time.sleep(0.05)
        report(str(ex.task_group_id))
        os._exit(0)
        """,
        endpoint.id,
        tmp_path / "go",
    )
    collect = """
        import concurrent.futures, os, sys, time

        ex = executor(sys.argv[1], task_group_id=sys.argv[2])
        futures = list(ex.reload_tasks())
        report(len(futures))
        done, _ = concurrent.futures.wait(futures, timeout=15)
        report(sum(future.result() for future in done))
        os._exit(0)
        """
    both = [sdk.start(collect, endpoint.id, group) for _ in range(2)]
    assert [one.wait_for_report(1) for one in both] == [8, 8]
    time.sleep(3)  # both watch the group's queue by now
    (tmp_path / "go").touch()
    shares = [one.finish()[1] for one in both]
    assert sum(shares) == 8 and 0 < shares[0] < 8, shares
    assert sdk.run(collect, endpoint.id, group) == [8, 8]


def serving(data):
    return [binary("farcall"), "serve", "--data-dir", data, "--http-listen", "127.0.0.1:0", "--amqp-listen", "127.0.0.1:0"]


def unknown(somebody):
    """A service with a certificate of an authority that nobody knows, and its URL."""
    data = somebody.directory / "private" / "data"
    (data / "tls").mkdir(parents=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=an unknown authority",
         "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost", "-keyout", data / "tls/key.pem", "-out", data / "tls/certificate.pem"],
        check=True, capture_output=True,
    )
    settings = ["http.tls_listen=127.0.0.1:0", "tls.certificate=tls/certificate.pem", "tls.key=tls/key.pem"]
    command = serving(data) + [part for setting in settings for part in ("--set", setting)]
    process = somebody.testbed.start("unknown", command, somebody.testbed.environment())
    port = process.wait_for(r"https://127\.0\.0\.1:(\d+)")[1]
    return process, f"https://localhost:{port}"


@symptom
def unknown_authority(somebody):
    process, url = unknown(somebody)
    printed = somebody.compute("start", somebody.configured(), **somebody.there() | {"FARCALL_SERVICE_URL": url})
    assert process.stop() == 0
    return printed


@symptom
def not_believed(somebody):
    process, url = unknown(somebody)
    printed = somebody.farcall("connect", url, "--", "true")
    assert process.stop() == 0
    return printed


@symptom
def away(somebody):
    private = private_service(somebody.testbed, somebody.directory)
    program = "echo begun; read line; " + 'python3 -c "import urllib.request as r; r.urlopen(\'http://localhost:5000/v2/version\')" 2> /dev/null'
    client = subprocess.Popen(
        [str(word) for word in (binary("farcall"), "connect", private.tls_url, "--ca", private.authority, "--", "sh", "-c", program)],
        env=somebody.testbed.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    assert client.stdout.readline() == "begun\n"
    private.stop()
    return client.communicate("\n", timeout=60)[1]


@symptom
def disconnected(somebody):
    endpoint = Endpoint(somebody.testbed, somebody.service, "gone")
    somebody.testbed.endpoints.append(endpoint)
    endpoint.configure()
    endpoint.start()
    endpoint.kill()
    return "\n".join(line.replace("gone   ", "cluster") for line in endpoint.run("list").stdout.splitlines() if endpoint.id in line)


# The service.


@symptom
def directory_in_use(somebody):
    return somebody.farcall("serve", "--data-dir", somebody.service.data)


@symptom
def port_in_use(somebody):
    address = f"127.0.0.1:{somebody.service.http_port}"
    printed = somebody.farcall("serve", "--data-dir", somebody.directory / "other", "--http-listen", address)
    return printed.replace(address, "127.0.0.1:5000")


@symptom
def unknown_setting(somebody):
    data = somebody.directory / "data"
    data.mkdir()
    (data / "farcall.yaml").write_text("http:\n  listens: 127.0.0.1:5000\n")
    return somebody.farcall("config", "check", "--data-dir", data)


@symptom
def unknown_name(somebody):
    with socket.create_connection(("127.0.0.1", somebody.service.http_port)) as connection:
        connection.sendall(b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := connection.recv(4096):
            answer += part
    return answer.decode().replace("\r\n", "\n")


@symptom
def newer_database(somebody):
    data = somebody.directory / "data"
    process = somebody.testbed.start("older", serving(data), somebody.testbed.environment())
    process.wait_for("farcall is ready")
    assert process.stop() == 0
    change = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); "
        "db.execute(\"INSERT INTO _sqlx_migrations VALUES (9999, 'later', '2030-01-01', 1, x'00', 1)\"); "
        "db.execute(\"UPDATE schema_compatibility SET oldest_known = 9999\"); db.commit()"
    )
    subprocess.run([environments.python("tests"), "-c", change, data / "farcall.db"], check=True)
    return re.sub(r"this version knows \d+", "this version knows 5", somebody.farcall("serve", "--data-dir", data))
