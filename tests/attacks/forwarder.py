"""Attacks on the connection from a client to a service on another machine (`farcall connect`)."""

import base64
import http.client
import json
import socket
import ssl
import subprocess
import threading
import urllib.parse

import environments
import pika
from certificate_authority import openssl, private_service
from processes import alive, until
from testbed import binary
from table import attack, played_elsewhere

# Sends a token through the proxy as often as a line is typed.
SENDS = """
import os, sys, urllib.error, urllib.request

for line in sys.stdin:
    request = urllib.request.Request("http://localhost:5000/v2/version", headers={"Authorization": "Bearer the-token"})
    try:
        print(urllib.request.urlopen(request, timeout=30).status, flush=True)
    except urllib.error.HTTPError as refused:
        print(refused.code, flush=True)
"""


class Relay:
    """Passes connections on to a service as they are, until it ends the TLS itself, with a certificate of its own making."""

    def __init__(self, directory, port):
        openssl(directory, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "own.key", "-out", "own.pem")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(directory / "own.pem", directory / "own.key")
        self.port = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "https://localhost:%d" % self.listener.getsockname()[1]
        self.attacks = False
        self.tried = 0
        self.read = b""
        self.open = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.attack if self.attacks else self.relay, args=[near], daemon=True).start()

    def relay(self, near):
        far = socket.create_connection(("127.0.0.1", self.port))
        self.open += [near, far]
        for source, target in (near, far), (far, near):
            threading.Thread(target=self.copy, args=[source, target], daemon=True).start()

    @staticmethod
    def copy(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass

    def attack(self, near):
        self.tried += 1
        try:
            with self.context.wrap_socket(near, server_side=True) as inside:
                while data := inside.recv(65536):
                    self.read += data
        except OSError:
            pass

    def begin_to_attack(self):
        self.attacks = True
        for connection in self.open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended
            connection.close()


def connect(service, *command, url=None):
    return [str(word) for word in [binary("farcall"), "connect", url or service.tls_url, "--ca", service.authority, "--", *command]]


@attack("a relay with a certificate of its own making, between client and service", "reads the client's token")
def reads_the_token(testbed):
    service = private_service(testbed, testbed.directory)
    relay = Relay(testbed.directory, service.tls_port)
    client = subprocess.Popen(
        connect(service, environments.python("tests"), "-c", SENDS, url=relay.url), env=testbed.environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )

    def send():
        client.stdin.write("\n")
        client.stdin.flush()
        return client.stdout.readline().strip()

    assert send() == "200"
    relay.begin_to_attack()
    assert [send(), send()] == ["503", "503"]
    _, said = client.communicate(timeout=30)
    assert client.returncode == 0 and "is not believed: invalid peer certificate" in said, said
    # Also one who is there from the beginning.
    refused = subprocess.run(
        connect(service, "echo", "ran", url=relay.url), env=testbed.environment(), capture_output=True, text=True, timeout=60
    )
    assert (refused.returncode, refused.stdout) == (1, "") and "is not believed" in refused.stderr
    assert relay.tried >= 3 and relay.read == b""
    relay.listener.close()


def forwarder(testbed, service, script="echo proxy $http_proxy; sleep 1000"):
    """A forwarder whose command tells its address, which only that command should know."""
    process = testbed.start("connect", connect(service, "sh", "-c", script), testbed.environment())
    proxy = urllib.parse.urlsplit(process.wait_for(r"^proxy (http://\S+)")[1])
    return process, proxy


def ask(proxy, head):
    with socket.create_connection((proxy.hostname, proxy.port), timeout=30) as stranger:
        stranger.sendall(head.encode())
        answer = b""
        while data := stranger.recv(65536):
            answer += data
    return answer.decode()


@attack("another program on the client's machine, without the password", "uses the forwarder")
def uses_the_forwarder(testbed):
    service = private_service(testbed, testbed.directory)
    process, proxy = forwarder(testbed, service)
    silent = socket.create_connection((proxy.hostname, proxy.port), timeout=50)
    listening = subprocess.run(["ss", "-ltnH", f"sport = :{proxy.port}"], capture_output=True, text=True).stdout
    assert listening.split()[3] == f"127.0.0.1:{proxy.port}", listening

    def basic(text):
        return "Proxy-Authorization: Basic " + base64.b64encode(text.encode()).decode() + "\r\n"

    right = basic(f"{proxy.username}:{proxy.password}")
    targets = [
        ("GET", "http://localhost:5000/v2/version"), ("GET", "/v2/version"),
        ("GET", f"http://127.0.0.1:{service.http_port}/v2/version"), ("CONNECT", f"127.0.0.1:{service.http_port}"),
    ]
    for method, target in targets:
        for shown in ("", basic("farcall:"), basic(f"farcall:{proxy.password[:-1]}"), basic(f"other:{proxy.password}"), right * 2,
                      right.replace("Proxy-", "")):
            answer = ask(proxy, f"{method} {target} HTTP/1.1\r\nHost: x\r\n{shown}Connection: close\r\n\r\n")
            assert answer.startswith("HTTP/1.1 407 "), (method, target, shown, answer)
            assert "min_ep_version" not in answer
    known = ask(proxy, f"GET {targets[0][1]} HTTP/1.1\r\nHost: x\r\n{right}Connection: close\r\n\r\n")
    assert known.startswith("HTTP/1.1 200 "), known
    # Headers without end are not read to their end.
    endless = ask(proxy, f"GET / HTTP/1.1\r\nX: {'x' * 100_000}")
    assert endless == "" or endless.startswith("HTTP/1.1 431 "), endless
    # Nor is a connection kept for long on which nobody shows the password.
    assert silent.recv(1) == b""
    process.stop(60)


def is_open(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@attack("another program on the client's machine, without the password", "holds all connections that the forwarder serves")
def holds_all_connections(testbed):
    """The oldest connections without a credential give way to new ones; those with a credential stay."""
    service = private_service(testbed, testbed.directory)
    process, proxy = forwarder(testbed, service)
    password = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
    headers = {"Proxy-Authorization": f"Basic {password}", "Authorization": f"Bearer {service.rest().token()}"}

    def ask_for_broker(connection):
        connection.request("GET", "http://localhost:5000/v2/get_amqp_result_connection_url", headers=headers)
        return json.load(connection.getresponse())["connection_url"]

    def connect_to(port, count):
        return [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(count)]

    kept = http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=30)
    broker = pika.URLParameters(ask_for_broker(kept))
    assert broker.host == "127.0.0.1" and broker.port not in (proxy.port, service.tls_port)
    kept_at_broker = pika.BlockingConnection(broker)

    strangers = connect_to(proxy.port, 700)
    ask_for_broker(http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=30))
    assert all(is_open(stranger) for stranger in strangers[-500:]), "the answer waited until they were too slow"
    ask_for_broker(kept)

    strangers += connect_to(broker.port, 200)
    pika.BlockingConnection(broker).close()
    assert all(is_open(stranger) for stranger in strangers[-100:]), "the handshake waited until they were too slow"
    kept_at_broker.channel().close()
    for stranger in strangers:
        stranger.close()
    process.stop(60)


# A command and its children: one has no descriptor of the command, one ignores SIGTERM, one has a session and an
# environment of its own.
CHILDREN = """
import os, subprocess, sys
nap = ["sleep", "1000"]
children = [
    subprocess.Popen(nap),
    subprocess.Popen(["sh", "-c", "trap : TERM; while :; do sleep 0.1; done"]),
    subprocess.Popen(nap, start_new_session=True, env={}),
]
print("processes", os.getpid(), *[child.pid for child in children], flush=True)
children[0].wait()
"""


def wait_for_the_port(process, ports):
    """Kills the program whose command is `CHILDREN`, and takes its ports as soon as they are free."""
    processes = [int(pid) for pid in process.wait_for(r"^processes (.*)$")[1].split()]
    assert all(alive(pid) for pid in processes)
    process.kill()

    def taken(port):
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            return None

    for port in ports:
        until(lambda: taken(port), f"port {port} is free").close()
        assert [pid for pid in processes if alive(pid)] == [], port


@attack("another program on the client's machine", "waits for the forwarder to die, and takes its port")
def takes_the_port(testbed):
    """Every process of the command has ended before anybody can have the port, whatever it was started as."""
    service = private_service(testbed, testbed.directory)
    process, proxy = forwarder(testbed, service, f"echo proxy $http_proxy; exec {environments.python('tests')} -c '{CHILDREN}'")
    wait_for_the_port(process, [proxy.port])


played_elsewhere(
    "a client, or whoever can add a header to its requests",
    "has the service name another host as its broker",
    "crates/service/tests/service/http.rs::a_forwarder_names_a_port_of_the_clients_machine_and_nothing_else",
)
played_elsewhere(
    "another host that a client asks through its forwarder, by plain HTTP",
    "reads what the client shows the service",
    "tests/e2e/test_connect.py::test_requests_to_other_hosts_pass_through",
)
played_elsewhere(
    "another service that somebody uses, too",
    "is sent a token of the first",
    "tests/e2e/test_login.py::test_one_login_serves_sdk_and_endpoint_and_no_other_service",
)
