"""`farcall connect`: the unmodified SDK reaches a service on another machine by a local forwarder, over verified TLS.

Attacks on the forwarder are in `tests/attacks/forwarder.py`.
"""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import environments
import pytest
from certificate_authority import certify, private_service
from processes import alive, until
from testbed import ROOT, Endpoint, binary

RELEASES = ["4.19.0", "3.8.0"]

EXECUTE = """
import sys

from prelude import *

def double(x):
    return x + x

with executor(sys.argv[1]) as ex:
    print(ex.submit(double, 21).result(timeout=90))
"""

# Asks the service through the proxy for each path that is typed, and says what came of it.
ASK = """
import os, sys, urllib.error, urllib.request

for line in sys.stdin:
    headers = {"Authorization": "Bearer " + os.environ["TOKEN"]}
    try:
        with urllib.request.urlopen(urllib.request.Request("http://localhost:5000" + line.strip(), headers=headers), timeout=30) as answer:
            print(answer.status, answer.read().decode(), flush=True)
    except urllib.error.HTTPError as refused:
        print(refused.code, refused.read().decode(), flush=True)
"""


@pytest.fixture(scope="module")
def private(shared_testbed, tmp_path_factory):
    return private_service(shared_testbed, tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def endpoint(shared_testbed, private):
    return shared_testbed.endpoint(private, "far")


def command(service, *words, url=None, ca=None):
    end = ["--", *words] if words else []
    return [str(word) for word in [binary("farcall"), "connect", url or service.tls_url, "--ca", ca or service.authority, *end]]


def surroundings(service, **variables):
    """A client's environment, in which nothing leads to the service, and much leads astray."""
    client_id, client_secret = service.identity
    return service.testbed.environment(
        PYTHONPATH=ROOT / "tests" / "clients",
        PYTHONWARNINGS="always",
        GLOBUS_COMPUTE_CLIENT_ID=client_id,
        GLOBUS_COMPUTE_CLIENT_SECRET=client_secret,
        HTTP_PROXY="http://192.0.2.1:1",
        NO_PROXY="localhost",
        no_proxy="localhost",
        **variables,
    )


def connected(service, *words, timeout=120, **variables):
    return subprocess.run(
        command(service, *words), env=surroundings(service, **variables), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=timeout,
    )


@pytest.mark.parametrize("release", RELEASES)
def test_a_task_runs(private, endpoint, release):
    done = connected(private, environments.python(f"sdk-{release}"), "-c", EXECUTE, endpoint.id)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "42\n"
    assert "InsecureRequestWarning" not in done.stderr and "farcall connect" not in done.stderr, done.stderr


def test_the_command_finds_what_the_sdk_needs(private):
    """And nothing that was there leads it away; its status is ours; each run has a password of its own."""
    script = "import json, os, sys; json.dump(dict(os.environ), sys.stdout); sys.exit(7)"
    runs = []
    for _ in range(2):
        done = connected(private, environments.python("tests"), "-c", script)
        assert done.returncode == 7, done.stderr
        runs.append(json.loads(done.stdout))
    for held in runs:
        assert re.fullmatch(r"http://farcall:[\w-]{43}@127\.0\.0\.1:\d+", held["http_proxy"])
        assert held["GLOBUS_SDK_SERVICE_URL_AUTH"] == private.tls_url + "/"
        assert held["GLOBUS_SDK_VERIFY_SSL"] == str(private.authority)
        assert held["GLOBUS_COMPUTE_USER_DIR"] == f"{held['HOME']}/.farcall/localhost_{private.tls_port}"
        assert not {"HTTP_PROXY", "NO_PROXY", "no_proxy", "https_proxy", "SSL_CERT_FILE"} & set(held)
    assert runs[0]["http_proxy"].split("@")[0] != runs[1]["http_proxy"].split("@")[0]


def test_without_a_command_it_says_what_to_evaluate(private, endpoint, shared_testbed):
    process = shared_testbed.start("connect", command(private), surroundings(private))
    evaluate = process.wait_for(r'^eval "\$\(cat .*$')[0]
    python = environments.python("sdk-4.19.0")
    shell = subprocess.run(
        ["sh", "-euc", f'{evaluate}\n"$@"', "sh", str(python), "-c", EXECUTE, endpoint.id],
        env=surroundings(private), capture_output=True, text=True, timeout=120,
    )
    assert shell.stdout == "42\n", shell.stderr
    file = shared_testbed.directory / "home" / ".farcall" / f"localhost_{private.tls_port}" / "connect"
    assert file.stat().st_mode & 0o777 == 0o600
    assert process.stop() == 0
    assert not file.exists()


@pytest.mark.parametrize("release", RELEASES)
def test_a_person_logs_in(private, shared_testbed, release, tmp_path):
    """The link leads straight to the service: a browser opens it."""
    who, password = f"alice-{release}@example.org", "correct horse battery"
    private.add_person(who, password)
    environment = surroundings(private, HOME=tmp_path, SSL_CERT_FILE=private.authority)
    del environment["GLOBUS_COMPUTE_CLIENT_ID"], environment["GLOBUS_COMPUTE_CLIENT_SECRET"]
    script = "from globus_compute_sdk import Client; print(len(Client().get_endpoints()), 'endpoints')"
    words = command(private, environments.python(f"sdk-{release}"), "-c", script)
    first = subprocess.run(
        [environments.python("tests"), ROOT / "tests" / "guide" / "log_in_at_terminal.py", who, password, *words],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )
    assert first.returncode == 0 and f"{private.tls_url}/v2/oauth2/authorize?" in first.stdout, first.stdout + first.stderr
    again = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert again.stdout == "0 endpoints\n", again.stderr
    assert (tmp_path / ".farcall" / f"localhost_{private.tls_port}" / "storage.db").exists()


class Behind(Endpoint):
    """Upstream's endpoint, which is led to the service by a forwarder and nothing else."""

    def environment(self):
        return surroundings(self.service, PATH=f"{self.python.parent}:{os.environ['PATH']}")

    def command(self, *arguments):
        return command(self.service, *super().command(*arguments))


@pytest.mark.long
def test_upstreams_endpoint_runs_behind_it(shared_testbed, private):
    endpoint = Behind(shared_testbed, private, "behind", python="sdk-3.8.0", upstream=True)
    shared_testbed.endpoints.append(endpoint)
    endpoint.configure()
    endpoint.start()
    done = connected(private, environments.python("sdk-3.8.0"), "-c", EXECUTE, endpoint.id)
    assert done.stdout == "42\n", done.stderr
    endpoint.stop()


@pytest.fixture
def elsewhere(tmp_path):
    """Another web server, plain and with TLS, which keeps what it hears."""
    heard = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(201)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[::-1])

        def log_message(self, *_):
            pass

    certify(tmp_path)
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Answer) for _ in range(2)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    servers[1].socket = context.wrap_socket(servers[1].socket, server_side=True)
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield servers[0].server_port, servers[1].server_port, tmp_path / "ca.pem", heard
    for server in servers:
        server.shutdown()
        server.server_close()


def test_requests_to_other_hosts_pass_through(private, elsewhere):
    """By plain HTTP without credentials that the service was sent; inside TLS as they are."""
    plain, tls, authority, heard = elsewhere
    script = f"""
import os, requests
proxies = {{"https": os.environ["http_proxy"]}}
headers = {{"Authorization": "Bearer of-somebody", "X-Mine": "1"}}
print(requests.get("http://localhost:5000/v2/version", headers=headers).status_code)
for url in "http://localhost:{plain}/a?b", "https://localhost:{tls}/c":
    answer = requests.post(url, data=b"abc", headers=headers, proxies=proxies, verify="{authority}")
    print(answer.status_code, answer.text)
headers["Authorization"] = "Bearer of-an-api"
print(requests.post("http://localhost:{plain}/d", data=b"abc", headers=headers).status_code)
"""
    done = connected(private, environments.python("sdk-4.19.0"), "-c", script)
    assert done.stdout == "200\n201 cba\n201 cba\n201\n", done.stderr
    (path, first, body), (inside_path, inside, _), (_, with_a_key, _) = heard
    assert (path, body, inside_path) == ("/a?b", b"abc", "/c")
    assert first["host"] == f"localhost:{plain}" and first["x-mine"] == "1"
    assert not {"authorization", "proxy-authorization", "farcall-amqp-port"} & set(first)
    assert inside["authorization"] == "Bearer of-somebody"
    assert with_a_key["authorization"] == "Bearer of-an-api"


def greeted(port):
    """What the broker answers to a client's greeting, by the port of a forwarder."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"AMQP\0\0\x09\x01")
        try:
            return client.recv(7)
        except ConnectionResetError:
            return b""


def test_an_absent_service_is_told_and_found_again(testbed, tmp_path):
    """Its broker, too."""
    service = private_service(testbed, tmp_path)
    process = subprocess.Popen(
        command(service, environments.python("tests"), "-c", ASK), env=surroundings(service, TOKEN=service.rest().token()),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(tmp_path / "said", "w"), text=True,
    )

    def ask(path="/v2/version"):
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    def said():
        return (tmp_path / "said").read_text()

    url = json.loads(ask("/v2/get_amqp_result_connection_url").removeprefix("200 "))["connection_url"]
    port = int(re.fullmatch(r"amqp://client\.\S+@127\.0\.0\.1:(\d+)/%2F", url)[1])
    # A method frame: Connection.Start.
    assert greeted(port)[:3] == b"\x01\0\0"
    assert said() == ""
    service.stop()
    for _ in range(2):
        answer = ask()
        assert answer.startswith("503 ") and f"{service.tls_url} can't be reached: " in answer
        assert greeted(port) == b""
    assert said().count("farcall connect: ") == 1 and "can't be reached: Connection refused" in said(), said()
    service.start()
    assert ask().startswith("200 ")
    assert greeted(port)[:3] == b"\x01\0\0"
    assert said().splitlines()[1:] == [f"farcall connect: localhost:{service.tls_port} is reached again"]
    process.stdin.close()
    assert process.wait(30) == 0


def test_a_signal_ends_all_of_it(private, shared_testbed):
    script = "sleep 1000 & echo child $!; setsid sleep 1000 & echo child $!; wait"
    process = shared_testbed.start("ended", command(private, "sh", "-c", script), surroundings(private))
    until(lambda: process.output().count("child ") == 2, "the children run")
    children = [int(pid) for pid in re.findall(r"child (\d+)", process.output())]
    assert process.stop(60) == 128 + signal.SIGTERM
    assert not [child for child in children if alive(child)]


def test_whom_it_does_not_believe_it_refuses_at_once(private, tmp_path):
    certify(tmp_path)

    def refused(**options):
        done = subprocess.run(
            command(private, "echo", "ran", **options), env=surroundings(private), capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("farcall: "), done.stderr
        return done.stderr

    wrong = refused(ca=tmp_path / "ca.pem")
    assert f"{private.tls_url} is not believed: invalid peer certificate" in wrong and "--ca FILE" in wrong
    # The certificate is not for an address.
    other_name = refused(url=f"https://127.0.0.1:{private.tls_port}")
    assert "is not believed: invalid peer certificate" in other_name, other_name
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing\n")
    assert f"{nothing} holds no certificate of an authority" in refused(ca=nothing)
    assert f"{tmp_path / 'absent.pem'}: " in refused(ca=tmp_path / "absent.pem")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert f"https://localhost:{port} can't be reached: Connection refused" in refused(url=f"https://localhost:{port}")
    assert "has no TLS" in refused(url="http://localhost:5000")


def test_env_recommends_nothing_by_which_tokens_can_be_taken():
    def env(*arguments):
        return subprocess.run([binary("farcall"), "env", *arguments], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)

    refused = env("https://compute.example.org")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "verifies no proxy's certificate" in refused.stderr
    assert "`farcall connect https://compute.example.org -- COMMAND`" in refused.stderr and "--insecure" in refused.stderr
    open_network = env("http://compute.example.org:5000")
    assert open_network.returncode == 1 and "without TLS" in open_network.stderr
    assert "http_proxy='https://compute.example.org'" in env("https://compute.example.org", "--insecure").stdout
    assert env("http://localhost:5001").returncode == 0
