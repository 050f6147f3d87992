"""A fake broker that breaks the protocol on its first connection, and forwards later connections to a real broker.

A scenario is a function of a `Wire`; it ends when the endpoint closes the connection, or by itself.
"""

import random
import socket
import struct
import threading
import time

import pika
from pika import spec

SCENARIOS = {}
# So long the endpoint may take to end a connection that is beyond repair.
PATIENCE = 60


def scenario(function):
    SCENARIOS[function.__name__.replace("_", " ")] = function
    return function


class Gone(Exception):
    """The endpoint has ended the connection."""


class Wire:
    """The broker's end of a connection."""

    def __init__(self, connection):
        self.connection = connection
        self.connection.settimeout(PATIENCE)
        self.unread = b""
        # Channels by what the endpoint uses them for.
        self.consuming = None

    def send(self, data):
        try:
            self.connection.sendall(data)
        except OSError:
            raise Gone from None

    def method(self, channel, method):
        self.send(pika.frame.Method(channel, method).marshal())

    def frame(self, kind, channel, payload, end=b"\xce"):
        self.send(struct.pack(">BHI", kind, channel, len(payload)) + payload + end)

    def _read(self, count):
        while len(self.unread) < count:
            try:
                more = self.connection.recv(1 << 16)
            except TimeoutError:
                raise AssertionError("the endpoint neither speaks nor leaves") from None
            except OSError:
                raise Gone from None
            if not more:
                raise Gone
            self.unread += more
        taken, self.unread = self.unread[:count], self.unread[count:]
        return taken

    def greeting(self):
        assert self._read(8) == b"AMQP\x00\x00\x09\x01"

    def next(self):
        """The next method: its channel and itself. Other frames are passed over."""
        while True:
            kind, channel, length = struct.unpack(">BHI", self._read(7))
            payload = self._read(length)
            assert self._read(1) == b"\xce"
            if kind == 1:
                (number,) = struct.unpack(">I", payload[:4])
                method = spec.methods[number]()
                method.decode(payload, 4)
                return channel, method

    def until(self, kind, **tune):
        """Plays a good broker until it has answered a method of this kind."""
        answers = {
            spec.Connection.StartOk: lambda _: spec.Connection.Tune(**({"channel_max": 100, "frame_max": 131072, "heartbeat": 60} | tune)),
            spec.Connection.Open: lambda _: spec.Connection.OpenOk(),
            spec.Channel.Open: lambda _: spec.Channel.OpenOk(),
            spec.Confirm.Select: lambda _: spec.Confirm.SelectOk(),
            spec.Basic.Qos: lambda _: spec.Basic.QosOk(),
            spec.Basic.Consume: lambda asked: spec.Basic.ConsumeOk(asked.consumer_tag),
        }
        self.greeting()
        properties = {"capabilities": {"publisher_confirms": True, "basic.nack": True, "consumer_cancel_notify": True}}
        self.method(0, spec.Connection.Start(0, 9, properties, "PLAIN", "en_US"))
        while True:
            channel, asked = self.next()
            if type(asked) in answers:
                self.method(channel, answers[type(asked)](asked))
            if isinstance(asked, spec.Basic.Consume) and self.consuming is None:
                self.consuming = channel
            if isinstance(asked, kind):
                return channel

    def deliver(self, headers=b"", size=0, body=b""):
        """A delivery whose header frame holds these raw properties."""
        self.method(self.consuming, spec.Basic.Deliver("farcall.tasks", 1, False, "tasks", "k"))
        flags = 1 << 13 if headers else 0
        self.frame(2, self.consuming, struct.pack(">HHQH", 60, 0, size, flags) + headers)
        if body:
            self.frame(3, self.consuming, body)

    def leaves(self):
        """Waits until the endpoint has had enough."""
        try:
            while True:
                channel, asked = self.next()
                if isinstance(asked, spec.Connection.Close):
                    self.method(0, spec.Connection.CloseOk())
        except Gone:
            pass


class Hostile:
    def __init__(self, attack, target):
        self.attack = attack
        self.target = target
        self.outcome = "nobody came"
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _first(self):
        """The first connection on which anything is said. Another test may look whether something listens on a port that
        it had before."""
        while True:
            connection, _ = self.listener.accept()
            try:
                if connection.recv(1, socket.MSG_PEEK):
                    return connection
            except OSError:
                pass
            connection.close()

    def _serve(self):
        connection = self._first()
        self.outcome = "under attack"
        try:
            self.attack(Wire(connection))
            self.outcome = "over"
        except Gone:
            self.outcome = "over"
        except Exception as error:
            self.outcome = repr(error)
        connection.close()
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(one, other), daemon=True).start()

    def close(self):
        self.listener.close()


def _pump(source, sink):
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
    except OSError:
        pass
    for one in (source, sink):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


STAGES = [spec.Connection.StartOk, spec.Connection.Open, spec.Channel.Open, spec.Confirm.Select, spec.Basic.Qos, spec.Basic.Consume]


def closes_after(kind):
    def attack(wire):
        wire.until(kind)

    attack.__name__ = f"closes_after_{kind.__qualname__}"
    scenario(attack)


for stage in STAGES:
    closes_after(stage)


@scenario
def closes_at_once(wire):
    pass


@scenario
def closes_after_its_greeting(wire):
    wire.greeting()
    wire.method(0, spec.Connection.Start(0, 9, {}, "PLAIN", "en_US"))


@scenario
def never_answers(wire):
    wire.greeting()
    wire.leaves()


@scenario
def stops_answering_before_it_is_open(wire):
    wire.until(spec.Connection.StartOk)
    wire.leaves()


@scenario
def speaks_another_protocol(wire):
    wire.greeting()
    wire.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    wire.leaves()


@scenario
def speaks_another_version(wire):
    wire.greeting()
    wire.send(b"AMQP\x00\x01\x00\x00")


@scenario
def sends_noise(wire):
    wire.greeting()
    wire.send(random.Random(9).randbytes(100_000))
    wire.leaves()


@scenario
def offers_no_way_to_log_in(wire):
    wire.greeting()
    wire.method(0, spec.Connection.Start(0, 9, {}, "EXTERNAL", "en_US"))
    wire.leaves()


@scenario
def tunes_frames_of_four_gigabytes(wire):
    wire.until(spec.Basic.Consume, frame_max=0xFFFFFFFF)


@scenario
def tunes_frames_without_limit(wire):
    wire.until(spec.Basic.Consume, frame_max=0, channel_max=0, heartbeat=0)


@scenario
def tunes_frames_of_a_byte(wire):
    wire.until(spec.Connection.Open, frame_max=1)


@scenario
def allows_one_channel(wire):
    wire.until(spec.Channel.Open, channel_max=1)
    wire.leaves()


@scenario
def falls_silent(wire):
    wire.until(spec.Basic.Consume, heartbeat=2)
    time.sleep(PATIENCE / 4)


@scenario
def announces_a_frame_of_four_gigabytes(wire):
    wire.until(spec.Basic.Consume, heartbeat=2)
    wire.send(struct.pack(">BHI", 3, 1, 0xFFFFFFF0))
    for _ in range(1000):
        wire.send(b"x" * 100_000)
    wire.leaves()


@scenario
def sends_a_frame_of_no_kind(wire):
    wire.until(spec.Basic.Consume)
    wire.frame(77, 1, b"hello")
    wire.leaves()


@scenario
def sends_a_frame_without_its_end(wire):
    wire.until(spec.Basic.Consume)
    wire.frame(1, 1, b"hello", end=b"\x00")
    wire.leaves()


@scenario
def speaks_on_a_channel_that_is_not_open(wire):
    wire.until(spec.Basic.Consume)
    wire.method(99, spec.Basic.CancelOk("x"))
    wire.frame(3, 98, b"a body of nobody's")
    wire.leaves()


@scenario
def calls_a_method_nobody_knows(wire):
    wire.until(spec.Basic.Consume)
    wire.frame(1, 1, struct.pack(">HH", 199, 99))
    wire.leaves()


@scenario
def answers_what_nobody_asked(wire):
    wire.until(spec.Basic.Consume)
    wire.method(wire.consuming, spec.Basic.GetEmpty())
    wire.method(wire.consuming, spec.Queue.DeclareOk("q", 1, 1))
    wire.leaves()


@scenario
def sends_a_body_without_a_header(wire):
    wire.until(spec.Basic.Consume)
    wire.frame(3, wire.consuming, b"a body of nobody's")
    wire.leaves()


@scenario
def sends_more_body_than_it_announced(wire):
    wire.until(spec.Basic.Consume)
    wire.deliver(size=3, body=b"x" * 1000)
    wire.leaves()


@scenario
def announces_a_body_without_end(wire):
    wire.until(spec.Basic.Consume)
    wire.deliver(size=(1 << 63) - 1, body=b"x" * 1000)
    for _ in range(3000):
        wire.frame(3, wire.consuming, b"x" * 131_000)
    wire.leaves()


@scenario
def sends_many_bodies_that_are_large(wire):
    wire.until(spec.Basic.Consume)
    for _ in range(40):
        wire.deliver(size=10_480_000)
        for _ in range(80):
            wire.frame(3, wire.consuming, b"x" * 131_000)


def nested(depth):
    """A header table, nested so deep."""
    table = b""
    for _ in range(depth):
        table = b"\x00F" + struct.pack(">I", len(table)) + table
    return struct.pack(">I", len(table)) + table


@scenario
def nests_headers_by_the_thousand(wire):
    wire.until(spec.Basic.Consume)
    wire.deliver(headers=nested(20_000))
    wire.leaves()


@scenario
def nests_its_own_properties_by_the_thousand(wire):
    wire.greeting()
    table = nested(21_000)
    wire.frame(1, 0, struct.pack(">HHBB", 10, 10, 0, 9) + table + struct.pack(">I", 5) + b"PLAIN" + struct.pack(">I", 5) + b"en_US")
    wire.leaves()


@scenario
def sends_a_table_that_is_cut_short(wire):
    wire.until(spec.Basic.Consume)
    wire.deliver(headers=struct.pack(">I", 1000) + b"\x01aS")
    wire.leaves()


@scenario
def confirms_what_was_not_published(wire):
    channel = wire.until(spec.Confirm.Select)
    for tag in (0, 1, 1 << 60):
        wire.method(channel, spec.Basic.Ack(tag, True))
        wire.method(channel, spec.Basic.Nack(tag, True))


@scenario
def closes_the_channel(wire):
    wire.until(spec.Basic.Consume)
    wire.method(wire.consuming, spec.Channel.Close(504, "for no reason", 0, 0))
    wire.leaves()


@scenario
def closes_the_connection_with_a_word(wire):
    wire.until(spec.Basic.Consume)
    wire.method(0, spec.Connection.Close(320, "for no reason", 0, 0))
    wire.leaves()


@scenario
def cancels_the_consumer(wire):
    wire.until(spec.Basic.Consume)
    wire.method(wire.consuming, spec.Basic.Cancel("farcall.tasks", True))
    wire.leaves()
