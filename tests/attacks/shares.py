"""Attacks by clients that use up what all share: connections, bodies, endpoints, credentials."""

import re
import resource
import socket
import sys
import time
import urllib.parse
from pathlib import Path

import pika
import pytest
from pika import spec
from processes import until
from rest import Refused
from table import attack, played_elsewhere

sys.path.append(str(Path(__file__).resolve().parent.parent / "broker"))

from peer import Peer  # noqa: E402

played_elsewhere(
    "somebody with an account",
    "fills the memory by listing endpoints that say much of themselves",
    "crates/service/tests/service/shares.rs::a_list_of_endpoints_reads_what_it_shows",
)
played_elsewhere(
    "somebody with an account",
    "makes the lists of others slow by endpoints that name them",
    "crates/store/src/tests.rs::lists_of_endpoints_scan_no_table",
)
played_elsewhere(
    "somebody with an account",
    "opens connections to the broker for all of their endpoints",
    "crates/service/tests/service/shares.rs::an_identity_has_its_share_of_the_connections_to_the_broker",
)
played_elsewhere(
    "somebody without an account",
    "reads nothing of an answer",
    "crates/service/src/http/client_pace.rs::an_answer_is_read",
)
played_elsewhere(
    "somebody with an account",
    "sends a body too slowly to end",
    "crates/service/src/http/client_pace.rs::a_body_brings_its_least_in_each_window_and_all_in_time",
)
played_elsewhere(
    "somebody with an account",
    "signs in, and asks for codes and tokens, without end",
    "crates/store/src/tests.rs::what_one_person_leaves_by_signing_in_is_bounded",
)


@attack("somebody with an account", "registers endpoints without end")
def registers_endpoints_without_end(testbed):
    service = testbed.service(configuration="limits:\n  endpoints_per_identity: 20\n")
    attacker, other = service.rest(), service.rest(service.add_client("other"))
    endpoint = {"endpoint_name": "ep", "metadata": {"endpoint_config": "#" * 1000}}
    for _ in range(20):
        attacker.post("/v3/endpoints", endpoint)
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            attacker.post("/v3/endpoints", endpoint)
        assert refused.value.status == 409
        assert "limits.endpoints_per_identity" in refused.value.body
    assert len(attacker.get("/v2/endpoints")) == 20
    other.post("/v3/endpoints", endpoint)


def connect(port, source="127.0.0.1"):
    """A connection to `port`, from `source`: each address of this machine's loopback counts as one."""
    return socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(source, 0))


def ask(service, source="127.0.0.1"):
    """Whether the service answers a request from `source`."""
    with connect(service.http_port, source) as stream:
        stream.sendall(b"GET /v2/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return stream.makefile("rb").readline().startswith(b"HTTP/1.1 200")


def is_answered(client, path):
    """Whether the service answers `client`'s GET."""
    try:
        return client.get(path) is not None
    except Refused:
        return False


def greets(service, source="127.0.0.1"):
    """Whether the broker greets somebody from `source`."""
    with connect(service.amqp_port, source) as stream:
        stream.sendall(b"AMQP\x00\x00\x09\x01")
        return stream.makefile("rb").read(1) == b"\x01"


def ended(stream, within=30):
    """Whether the other side ends `stream` within some seconds, and what it said before."""
    stream.settimeout(within)
    said = b""
    try:
        while part := stream.recv(65536):
            said += part
    except ConnectionResetError:
        pass
    return said


STALLED_BODY = (
    b"POST /v2/oauth2/token HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n\r\ng"
)


@attack("somebody without an account", "opens connections and says nothing, or a part of a request")
def opens_connections_and_leaves_them(testbed):
    service = testbed.service(configuration="limits:\n  http_connections: 40\n  amqp_connections: 40\n  head_seconds: 2\n")
    held = []
    for said in (b"", b"GET /v2/ver", b"GET /v2/version HTTP/1.1\r\nHost: localhost\r\n\r\n", STALLED_BODY):
        for _ in range(60):
            stream = connect(service.http_port)
            stream.sendall(said)
            held.append(stream)
            if said.startswith(b"GET") and said.endswith(b"\r\n\r\n"):
                assert stream.recv(17) == b"HTTP/1.1 200 OK\r\n"
        # From elsewhere, and from the same address.
        assert ask(service, "127.0.0.2") and ask(service)
        assert greets(service, "127.0.0.2") and greets(service)
    # A head that comes drop by drop is waited for as long as one that stops.
    dripping = connect(service.http_port, "127.0.0.3")
    dripping.settimeout(0.1)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            dripping.sendall(b"G")
            if dripping.recv(1) == b"":
                break
        except TimeoutError:
            pass
        except OSError:
            break
    else:
        raise AssertionError("the head was waited for")
    for stream in held:
        stream.close()


@attack("somebody without an account", "sends heads of hundreds of kilobytes")
def sends_large_heads(testbed):
    service = testbed.service()
    for size, status in ((30_000, b"200"), (100_000, b"431")):
        with connect(service.http_port) as stream:
            stream.sendall(b"GET /v2/version HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * size + b"\r\n\r\n")
            assert stream.recv(12) == b"HTTP/1.1 " + status


@attack("somebody without an account", "opens connections to the broker and never logs in")
def never_logs_in(testbed):
    service = testbed.service(configuration="limits:\n  amqp_connections: 40\n")
    held = [connect(service.amqp_port) for _ in range(60)]
    for stream in held:
        try:
            stream.sendall(b"AMQP\x00\x00\x09\x01")
        except OSError:
            pass  # it had to make room
    assert greets(service, "127.0.0.2") and greets(service)
    assert ask(service)
    # The newest are still heard, the oldest made room.
    assert held[-1].recv(1) == b"\x01"
    assert len(ended(held[0])) < 1000
    registration = service.rest().post("/v3/endpoints", {"endpoint_name": "ep", "metadata": {}})
    url = registration["task_queue_info"]["connection_url"]
    pika.BlockingConnection(pika.URLParameters(url)).close()
    for stream in held:
        stream.close()


@attack("somebody with an account", "begins large uploads and lets them stall")
def lets_uploads_stall(testbed):
    # Four times the largest body: an identity may have a quarter, an address half.
    configuration = f"limits:\n  payload_bytes: 1000\n  bodies_in_flight_bytes: {4 * ((16 << 20) + 1000)}\n"
    service = testbed.service(configuration=configuration)
    attacker, other = service.rest(), service.rest(service.add_client("other"))
    large = {"endpoint_name": "ep", "metadata": {}, "unknown": "x" * (8 << 20)}
    stalled = []
    for _ in range(8):
        stream = connect(service.http_port)
        head = (
            "POST /v3/endpoints HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {attacker.token()}\r\nContent-Length: {15 << 20}\r\n\r\n"
        )
        stream.sendall(head.encode() + b"{" + b" " * (14 << 20))
        stalled.append(stream)
        # Somebody else is not asked to come again, from the same address and with a large body.
        other.put("/v3/endpoints/00000000-0000-4000-8000-000000000001", large)
    for stream in stalled:
        stream.close()


@attack("somebody with an account", "asks for many large answers and reads nothing of them")
def reads_nothing_of_large_answers(testbed):
    # An identity may have a quarter of it in answers: two of these at a time.
    configuration = f"limits:\n  payload_bytes: 1000\n  bodies_in_flight_bytes: {4 * ((16 << 20) + 1000)}\n"
    service = testbed.service(configuration=configuration)
    attacker, other = service.rest(), service.rest(service.add_client("other"))

    def large(by):
        size = 7 << 20
        function = {"function_name": "f", "function_code": f"{size + 3}\n01\n{'x' * size}"}
        return "/v2/functions/" + by.post("/v3/functions", function)["function_uuid"]

    own, others = large(attacker), large(other)
    before = resident_megabytes(service)
    said, unread = [], []
    for _ in range(60):
        stream = socket.socket()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.connect(("127.0.0.1", service.http_port))
        head = f"GET {own} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {attacker.token()}\r\n\r\n"
        stream.sendall(head.encode())
        said.append(stream.recv(12))
        unread.append(stream)
    assert len(other.get(others)["function_code"]) > 7 << 20
    assert resident_megabytes(service) < before + 100
    assert (said.count(b"HTTP/1.1 200"), said.count(b"HTTP/1.1 503")) == (2, 58)
    # What is closed makes room again.
    for stream in unread:
        stream.close()
    until(lambda: is_answered(attacker, own), "room for another answer")


@attack("somebody with an account", "asks for addresses of their results without end")
def asks_for_addresses_without_end(testbed):
    service = testbed.service()
    attacker = service.rest()

    def address():
        return attacker.get("/v2/get_amqp_result_connection_url")["connection_url"]

    first = address()
    connection = pika.BlockingConnection(pika.URLParameters(first))
    asked = {address() for _ in range(300)}
    assert len(asked) <= 16
    # What is connected stays so, and the first address opens connections still.
    connection.process_data_events()
    assert connection.is_open
    connection.close()
    pika.BlockingConnection(pika.URLParameters(first)).close()
    # Others are not slower for what was asked: their first address is their first credential.
    other = service.rest(service.add_client("other"))
    assert ".1:" in other.get("/v2/get_amqp_result_connection_url")["connection_url"]


def endpoint_at_the_broker(service, identity):
    """A new endpoint of `identity`: its connection to the broker, frame by frame, and under what it publishes results."""
    registration = service.rest(identity).post("/v3/endpoints", {"endpoint_name": "ep", "metadata": {}})
    url = urllib.parse.urlparse(registration["task_queue_info"]["connection_url"])
    return Peer(service.amqp_port).open(url.username, url.password), f"{registration['endpoint_id']}.results"


@attack("a malicious endpoint", "promises large results to the broker that never come")
def promises_results_that_never_come(testbed):
    service = testbed.service()
    attacker, key = endpoint_at_the_broker(service, service.identity)
    channels = range(1, 9)
    attacker.channel(*channels)
    for channel in channels:
        attacker.send(channel, spec.Basic.Publish(0, "results", key))
        attacker.header(channel, 60 << 20)
        attacker.frame(spec.FRAME_BODY, channel, b"x" * 1_000)
    # The large message of another's endpoint is taken, if only to be refused: no task of theirs is named in it.
    other, key = endpoint_at_the_broker(service, service.add_client("other"))
    other.channel(1).confirming()
    other.publish(1, "results", key, b"x" * 5_000_000)
    assert len(other.settle()) == 1
    attacker.drop()
    other.close()


def resident_megabytes(service):
    """The most memory that the service's process has held."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) >> 10


@attack("somebody without an account", "opens 10,000 connections and leaves them", long=True)
def opens_ten_thousand_connections(testbed):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    service = testbed.service()
    for port, said in ((service.http_port, b"GET /v2/ver"), (service.amqp_port, b"AMQP\x00\x00\x09\x01")):
        held = []
        for _ in range(10_000):
            held.append(connect(port))
            held[-1].sendall(said)
        assert ask(service, "127.0.0.2") and ask(service)
        assert greets(service, "127.0.0.2") and greets(service)
        for stream in held:
            stream.close()


@attack("somebody with an account", "begins four uploads of 64 MiB and lets them stall", long=True)
def lets_large_uploads_stall(testbed):
    service = testbed.service()
    attacker, other = service.rest(), service.rest(service.add_client("other"))
    function = other.post("/v3/functions", {"function_name": "f", "function_code": "7\n01\ngASV"})["function_uuid"]
    endpoint = other.post("/v3/endpoints", {"endpoint_name": "ep", "metadata": {}})["endpoint_id"]
    stalled = []
    for _ in range(4):
        stream = connect(service.http_port)
        head = (
            f"POST /v3/endpoints/{endpoint}/submit HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {attacker.token()}\r\nContent-Length: {70 << 20}\r\n\r\n"
        )
        stream.sendall(head.encode() + b"{" + b" " * (63 << 20))
        stalled.append(stream)
        other.post(f"/v3/endpoints/{endpoint}/submit", {"tasks": {function: ["1" * (40 << 20)]}})
    # They end when nothing more has come for ten seconds.
    said = [ended(stream, within=60)[:12] for stream in stalled]
    assert set(said) <= {b"HTTP/1.1 408", b"HTTP/1.1 503"}, said


@attack("somebody with an account", "lists 1,000 endpoints of 1 MB each", long=True)
def lists_a_thousand_large_endpoints(testbed):
    service = testbed.service()
    attacker = service.rest()
    endpoint = {"endpoint_name": "ep", "metadata": {"endpoint_config": "#" * 1_000_000}}
    for _ in range(1000):
        attacker.post("/v3/endpoints", endpoint)
    before = resident_megabytes(service)
    for role in ("owner", "any"):
        assert len(attacker.get(f"/v2/endpoints?role={role}")) == 1000
    assert resident_megabytes(service) < before + 20
