"""Attacks by clients. During and after each, the broker serves other clients, and its memory stays below its limit.

Every test has its own broker with small limits. A client that was connected before the attack (the bystander) goes on working,
and a new client can connect.
"""

import random
import resource
import select
import socket
import struct
import threading
import time
from contextlib import contextmanager

import pytest
from pika import frame, spec
from pika.spec import Basic, Channel, Connection, Queue
from processes import until

from ours import MEGABYTE, Ours
from peer import Peer

GREETING = b"AMQP\x00\x00\x09\x01"
# The memory of a broker besides the messages it holds: its program, its threads, the buffers of its connections.
OWN = 48 * MEGABYTE
LIMIT = 16 * MEGABYTE


@contextmanager
def attacked(tmp_path, **options):
    """A broker and a bystander. Checks afterwards what must hold after every attack."""
    broker = Ours(tmp_path, memory_limit=LIMIT, **options)
    try:
        bystander = Bystander(broker)
        bystander.works()
        yield broker, bystander
        assert broker.running(), broker.output()
        assert "panicked" not in broker.output(), broker.output()
        bystander.works()
        Bystander(broker).works()
        _, most = broker.resident()
        assert most < LIMIT + OWN, f"it took up to {most / MEGABYTE:.0f} MB"
    finally:
        broker.stop()


class Bystander:
    """A well-behaved client with its own connection and queue."""

    def __init__(self, broker):
        self.peer = Peer(broker.port).open().channel(1).confirming()
        self.queue = self.peer.ask(1, Queue.Declare(exclusive=True)).queue

    def works(self):
        self.peer.publish(1, "", self.queue, "hello")
        assert set(self.peer.settle()) == {"ack"}
        assert self.peer.ask(1, Basic.Get(queue=self.queue, no_ack=True)).body == b"hello"


def raw(port, data=b""):
    """A TCP connection on which `data` was sent."""
    connection = socket.create_connection(("127.0.0.1", port), 10)
    if data:
        try:
            connection.sendall(data)
        except OSError:
            pass
    return connection


def hung_up(connection, timeout=20):
    """Whether the broker closes the connection. What it sends before is ignored."""
    connection.settimeout(timeout)
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    connection.close()
    return True


def room_for(files):
    """Allows this process, and the broker that it starts, to open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(files, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def nested(depth, kind=b"A"):
    """A table with one field, which holds nested arrays or tables."""
    value = b"V"
    for _ in range(depth):
        inner = value if kind == b"A" else b"\x01k" + value
        value = kind + struct.pack(">I", len(inner)) + inner
    table = b"\x01k" + value
    return struct.pack(">I", len(table)) + table


def method(group, number, arguments):
    payload = struct.pack(">HH", group, number) + arguments
    return struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce"


def short(text):
    return bytes([len(text)]) + text


def test_deeply_nested_tables_before_the_log_in(tmp_path):
    with attacked(tmp_path) as (broker, bystander):
        attackers = []
        for kind in (b"A", b"F"):
            for depth in (33, 500, 5_000, 25_000):
                start_ok = method(10, 11, nested(depth, kind) + short(b"PLAIN") + struct.pack(">I", 0) + short(b"en_US"))
                attackers.append(raw(broker.port, GREETING + start_ok))
                bystander.works()
        assert all(map(hung_up, attackers))


def test_deeply_nested_tables_after_the_log_in(tmp_path):
    with attacked(tmp_path) as (broker, bystander):
        for kind in (b"A", b"F"):
            for depth in (33, 500, 5_000, 20_000):
                declaring = Peer(broker.port).open().channel(1)
                arguments = struct.pack(">HH", 50, 10) + b"\0\0" + short(b"q") + b"\0" + nested(depth, kind)
                declaring.frame(1, 1, arguments)
                declaring.wait_for_end()
                publishing = Peer(broker.port).open().channel(1)
                publishing.send(1, Basic.Publish(0, "", bystander.queue))
                publishing.header(1, 0, struct.pack(">H", 1 << 13) + nested(depth, kind))
                publishing.quiet(0.05)
                publishing.drop()
                # No message was published.
                bystander.works()


def test_frames_larger_than_agreed(tmp_path):
    with attacked(tmp_path) as (broker, bystander):
        attackers = []
        for size in (4_097, 1 << 20, (1 << 31) - 1, (1 << 32) - 1):
            # Before the tuning, frames may have 4,096 bytes. The header alone ends the connection.
            before = raw(broker.port, GREETING)
            before.recv(4_096)
            before.sendall(struct.pack(">BHI", 1, 0, size) + b"\0" * 1_000)
            attackers.append(before)
        for size in (131_073, 1 << 24, (1 << 32) - 1):
            for kind in (1, 2, 3, 8):
                after = Peer(broker.port).open().channel(1)
                after.write(struct.pack(">BHI", kind, 1, size) + b"\0" * 1_000)
                attackers.append(after._socket)
        bystander.works()
        assert all(map(hung_up, attackers))


def test_thousands_of_incomplete_handshakes(tmp_path):
    """Handshakes that stop at different points, without end."""
    room_for(8_000)
    count, allowed = 3_000, 500
    start_ok = frame.Method(0, Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US")).marshal()
    steps = [b"", b"AMQP", GREETING, GREETING + start_ok[:20], GREETING + start_ok]
    with attacked(tmp_path, handshakes=allowed) as (broker, bystander):
        held = []
        for number in range(count):
            held.append(raw(broker.port, steps[number % len(steps)]))
            if number % 500 == 0:
                bystander.works()
                Bystander(broker).works()
        # The broker closes the oldest: it keeps no more than the setting allows.
        until(lambda: broker.open_files() < allowed + 100, "the oldest handshakes are closed")
        assert hung_up(held[0])
        Bystander(broker).works()
        for connection in held:
            connection.close()


def test_slow_handshakes(tmp_path):
    """Hundreds of clients send one byte at a time. Each is closed when the time for a handshake is over."""
    room_for(4_000)
    start_ok = frame.Method(0, Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US")).marshal()
    with attacked(tmp_path, handshake_timeout=2) as (broker, bystander):
        slow = [raw(broker.port) for _ in range(300)]
        ended = set()
        for byte in GREETING + start_ok:
            for connection in slow:
                if connection in ended:
                    continue
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    ended.add(connection)
            bystander.works()
            if len(ended) == len(slow):
                break
            time.sleep(0.1)
        assert len(ended) == len(slow)
        until(lambda: broker.open_files() < 100, "slow handshakes are ended")


def test_incomplete_frames(tmp_path):
    """Connections that begin a large frame and never finish it take only the memory of what they have sent."""
    room_for(4_000)
    with attacked(tmp_path) as (broker, bystander):
        peers = [Peer(broker.port).open().channel(1) for _ in range(200)]
        for peer in peers:
            peer.send(1, Basic.Publish(0, "", bystander.queue))
            peer.header(1, 64 * MEGABYTE)
            peer.write(struct.pack(">BHI", 3, 1, 131_000) + b"x" * 10)
        bystander.works()
        for peer in peers:
            peer.drop()


def test_bodies_larger_than_allowed(tmp_path):
    with attacked(tmp_path) as (broker, bystander):
        for size in (1 << 40, (1 << 63) - 1, (1 << 64) - 1):
            peer = Peer(broker.port).open().channel(1)
            peer.send(1, Basic.Publish(0, "", bystander.queue))
            peer.header(1, size)
            assert peer.wait(1).reply_code == 311
            peer.drop()


def test_many_incomplete_bodies(tmp_path):
    """Fifty bodies of four megabytes: the broker limits how much is received at a time; the others wait."""
    with attacked(tmp_path, arriving_limit=8 * MEGABYTE) as (broker, bystander):
        peers = [Peer(broker.port).open().channel(1) for _ in range(50)]
        for peer in peers:
            peer.send(1, Basic.Publish(0, "", bystander.queue))
            peer.header(1, 4 * MEGABYTE)
            stalls(peer, struct.pack(">BHI", 3, 1, 131_000) + b"x" * 131_000 + b"\xce", 3 * MEGABYTE, 0.05)
        bystander.works()
        for peer in peers:
            peer.drop()


def test_a_flood_to_a_consumer_that_never_reads(tmp_path):
    with attacked(tmp_path) as (broker, bystander):
        flood(broker, bystander, 300_000)


@pytest.mark.long
def test_a_million_tiny_messages_to_a_consumer_that_never_reads(tmp_path):
    with attacked(tmp_path) as (broker, bystander):
        flood(broker, bystander, 1_000_000)


def flood(broker, bystander, count):
    """Publishes to a consumer that does not read, until the broker stops reading. Then the consumer reads: nothing was lost."""
    consumer = Peer(broker.port).open().channel(1)
    consumer.ask(1, Queue.Declare(queue="flooded"))
    consumer.ask(1, Basic.Consume(queue="flooded", consumer_tag="c", no_ack=True))
    publisher = Peer(broker.port).open().channel(1)
    nothing = frame.Header(1, 1, spec.BasicProperties()).marshal() + frame.Body(1, b"x").marshal()
    flow = Flow(publisher, frame.Method(1, Basic.Publish(0, "", "flooded")).marshal() + nothing, count)
    while flow.left:
        if not select.select([], [flow], [], 2)[1]:
            break
        flow.pour()
    assert flow.left, "the broker reads everything although the consumer does not"
    bystander.works()
    Bystander(broker).works()
    # Now the consumer reads, and the broker reads the rest.
    delivery = frame.Method(1, Basic.Deliver("c", 1, False, "", "flooded")).marshal() + nothing
    wanted, got = count * len(delivery), 0
    receiver = consumer._socket
    while got < wanted:
        readable, writable, _ = select.select([receiver], [flow] if flow.left else [], [], 20)
        assert readable or writable, f"nothing moves after {got // len(delivery)} of {count}"
        if writable:
            flow.pour()
        if readable:
            data = receiver.recv(1 << 20)
            assert data, "the consumer's connection ended"
            got += len(data)
    assert got == wanted
    publisher.drop()
    consumer.drop()


class Flow:
    """Sends the same message `count` times, as fast as the broker reads."""

    def __init__(self, peer, message, count):
        self._socket = peer._socket
        self._socket.setblocking(False)
        self._length = len(message)
        self._block = memoryview(message * max(1, (1 << 16) // len(message)))
        self._sent, self.left = 0, count * len(message)

    def fileno(self):
        return self._socket.fileno()

    def pour(self):
        start = self._sent % self._length
        sent = self._socket.send(self._block[start : start + min(len(self._block) - start, self.left)])
        self._sent += sent
        self.left -= sent


def test_a_publisher_that_never_reads(tmp_path):
    """Returned messages and confirms wait for a client that does not read: the broker stops reading from it."""
    with attacked(tmp_path) as (broker, bystander):
        publisher = Peer(broker.port).open().channel(1).confirming()
        one = frame.Method(1, Basic.Publish(0, "", "nobody", mandatory=True)).marshal()
        one += frame.Header(1, 10_000, spec.BasicProperties()).marshal() + frame.Body(1, b"x" * 10_000).marshal()
        assert stalls(publisher, one, 256 * MEGABYTE), "the broker reads everything"
        bystander.works()
        publisher.drop()


def test_a_client_that_sends_requests_and_never_reads(tmp_path):
    """The same with other requests and their replies."""
    with attacked(tmp_path) as (broker, bystander):
        asker = Peer(broker.port).open().channel(1)
        asker.ask(1, Queue.Declare(queue="asked"))
        asker.confirming().publish(1, "", "asked", b"x" * 100_000)
        asker.settle()
        one = frame.Method(1, Basic.Get(queue="asked")).marshal() + frame.Method(1, Basic.Recover(True)).marshal()
        assert stalls(asker, one * 100, 64 * MEGABYTE), "the broker reads everything"
        bystander.works()
        asker.drop()


def stalls(peer, message, most, patience=2):
    """Sends the same message repeatedly. Returns whether the broker stops reading before `most` bytes."""
    flow = Flow(peer, message, most // len(message))
    while flow.left:
        if not select.select([], [flow], [], patience)[1]:
            return True
        try:
            flow.pour()
        except ConnectionError:
            return True
    return False


def test_a_flood_of_channels(tmp_path):
    with attacked(tmp_path, channels=500) as (broker, bystander):
        greedy = []
        for _ in range(20):
            peer = Peer(broker.port)
            tune = peer.log_in()
            assert tune.channel_max == 500
            peer.send(0, Connection.TuneOk(500, 131_072, 0))
            peer.ask(0, Connection.Open("/"))
            peer.write(b"".join(frame.Method(number, Channel.Open()).marshal() for number in range(1, 502)))
            peer.wait_for_end()
            greedy.append(peer)
            other = Peer(broker.port).open(channel_max=500)
            other.channel(*range(1, 501))
            greedy.append(other)
        bystander.works()
        for peer in greedy:
            peer.drop()


def test_a_flood_of_consumers(tmp_path):
    with attacked(tmp_path, consumers=1_000) as (broker, bystander):
        for _ in range(5):
            peer = Peer(broker.port).open().channel(1)
            peer.ask(1, Queue.Declare(queue="consumed"))
            consume = [Basic.Consume(queue="consumed", consumer_tag=f"{number}", nowait=True) for number in range(5_000)]
            peer.write(b"".join(frame.Method(1, it).marshal() for it in consume))
            answer = peer.ask(1, Queue.Declare(queue="consumed", passive=True))
            assert not isinstance(answer, Queue.DeclareOk)
            bystander.works()
            peer.drop()


def test_a_flood_of_connections(tmp_path):
    room_for(4_000)
    with attacked(tmp_path, connections=100) as (broker, bystander):
        # When one user's share is used up, the next connection is refused; another user can still connect.
        held = []
        refused = None
        for _ in range(150):
            peer = Peer(broker.port)
            peer.log_in()
            peer.send(0, Connection.TuneOk(2_047, 131_072, 0))
            answer = peer.ask(0, Connection.Open("/"))
            if isinstance(answer, Connection.Close):
                refused = answer.reply_code
                break
            held.append(peer)
        assert refused == 530
        assert len(held) <= 100
        other = Peer(broker.port).open(user="limited").channel(1)
        assert isinstance(other.ask(1, Queue.Declare(queue="limited.q")), Queue.DeclareOk)
        for peer in held:
            peer.drop()
        until(lambda: broker.open_files() < 50, "the connections are closed")


def test_wrong_credentials_in_a_loop(tmp_path):
    with attacked(tmp_path) as (broker, bystander):
        codes = []

        def guess(seed):
            for number in range(4):
                peer = Peer(broker.port)
                peer.write(GREETING)
                peer.wait(0, Connection.Start)
                answer = peer.start_ok("guest", f"{seed}-{number}")
                codes.append(getattr(answer, "reply_code", None))
                peer.drop()

        guessers = [threading.Thread(target=guess, args=(seed,)) for seed in range(40)]
        for thread in guessers:
            thread.start()
        while any(thread.is_alive() for thread in guessers):
            # A client with the right password does not wait for those that guess.
            Bystander(broker).works()
        for thread in guessers:
            thread.join()
        assert codes == [403] * 160


def test_garbage_instead_of_a_greeting(tmp_path):
    chance = random.Random(4)
    with attacked(tmp_path) as (broker, bystander):
        for number in range(300):
            garbage = chance.randbytes(chance.randrange(8, 2_000))
            connection = raw(broker.port, garbage)
            if number % 50 == 0:
                assert hung_up(connection)
                bystander.works()
            else:
                connection.close()
        for greeting in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"AMQP" * 1_000):
            assert hung_up(raw(broker.port, greeting))


def test_garbage_in_an_open_connection(tmp_path):
    """Valid frames with some bytes changed and some cut out."""
    chance = random.Random(5)
    methods = [
        Channel.Open(),
        Queue.Declare(queue="garbage", arguments={"x-max-length": 10, "a": [1, {"b": None}]}),
        Queue.Bind(queue="garbage", exchange="amq.topic", routing_key="a.#"),
        Basic.Qos(prefetch_count=10),
        Basic.Consume(queue="garbage", consumer_tag="c"),
        Basic.Publish(0, "amq.topic", "a.b"),
    ]
    good = b"".join(frame.Method(1, it).marshal() for it in methods)
    good += frame.Header(1, 5, spec.BasicProperties(headers={"k": "v", "n": [1, 2]}, delivery_mode=1)).marshal()
    good += frame.Body(1, b"hello").marshal() + frame.Method(1, Basic.Ack(1)).marshal()
    with attacked(tmp_path) as (broker, bystander):
        for number in range(300):
            bad = bytearray(good)
            for _ in range(chance.randrange(1, 5)):
                bad[chance.randrange(len(bad))] = chance.randrange(256)
            if chance.random() < 0.3:
                start = chance.randrange(len(bad))
                del bad[start : start + chance.randrange(20)]
            peer = Peer(broker.port).open()
            peer.write(bytes(bad))
            if number % 50 == 0:
                bystander.works()
            peer.drop()


def test_all_connections_are_lost_at_once(tmp_path):
    """Hundreds of connections with consumers and unacknowledged messages are lost at the same moment."""
    room_for(4_000)
    with attacked(tmp_path) as (broker, bystander):
        publisher = Peer(broker.port).open().channel(1).confirming()
        publisher.ask(1, Queue.Declare(queue="shared"))
        crowd = []
        for _ in range(200):
            peer = Peer(broker.port).open().channel(1)
            peer.ask(1, Basic.Qos(prefetch_count=2))
            peer.ask(1, Basic.Consume(queue="shared", consumer_tag="c"))
            crowd.append(peer)
        for number in range(400):
            publisher.publish(1, "", "shared", f"{number}")
        publisher.settle()
        for peer in crowd:
            peer.take(1, 2)
        for peer in crowd:
            peer._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.drop()
        until(
            lambda: publisher.ask(1, Queue.Declare(queue="shared", passive=True)).message_count == 400,
            "every message is back in its queue",
        )
        bodies = [publisher.ask(1, Basic.Get(queue="shared", no_ack=True)) for _ in range(400)]
        assert [int(it.body) for it in bodies] == list(range(400))
        assert all(it.redelivered for it in bodies)
