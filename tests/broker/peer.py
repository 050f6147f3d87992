"""An AMQP client that sends frame by frame and records what the broker sends.

pika's tables encode the methods. Connection, channels and content are handled here, because a client library hides what the
scenarios compare: the exact replies and their order, the bytes of a header, how a connection ends.
"""

import hashlib
import itertools
import re
import socket
import struct
import time

from pika import frame, spec

PATIENCE = 15
CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}
WITH_CONTENT = (spec.Basic.Deliver, spec.Basic.GetOk, spec.Basic.Return)
HEARTBEAT = "heartbeat"
ENDED = "the connection ended"


class NotReceived(AssertionError):
    """The broker did not send what the test waited for."""


class Peer:
    """A connection. `record(stream, line)` is called for everything that the broker sends; `stream` is the channel."""

    def __init__(self, port, record=lambda stream, line: None):
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.silent = False
        self._record = lambda stream, line: None if self.silent else record(stream, line)
        self._input = b""
        self._content = {}
        self._deliveries = {}
        self._published = {}
        self.returned = 0
        self.confirms = {}
        self.ended = False
        self.frame_max = 131_072
        self.body_frames = []

    # The handshake

    def open(
        self, user="guest", password=None, virtual_host="/", heartbeat=0, capabilities=None, frame_max=131_072, channel_max=2_047
    ):
        """The whole handshake; returns itself."""
        channel_max = min(channel_max, self.log_in(user, password, capabilities).channel_max)
        self.send(0, spec.Connection.TuneOk(channel_max, frame_max, heartbeat))
        self.frame_max = frame_max
        self.ask(0, spec.Connection.Open(virtual_host))
        return self

    def log_in(self, user="guest", password=None, capabilities=None):
        """The handshake until Tune is received."""
        self.write(b"AMQP\x00\x00\x09\x01")
        self.wait(0, spec.Connection.Start)
        return self.start_ok(user, user if password is None else password, capabilities)

    def start_ok(self, user, password, capabilities=None, mechanism="PLAIN"):
        properties = {"product": "scenarios", "capabilities": CAPABILITIES if capabilities is None else capabilities}
        answer = spec.Connection.StartOk(properties, mechanism, f"\0{user}\0{password}", "en_US")
        return self.ask(0, answer, spec.Connection.Tune)

    # Sending

    def write(self, data):
        try:
            self._socket.settimeout(PATIENCE)
            self._socket.sendall(data)
        except TimeoutError:
            raise NotReceived("the broker does not read") from None
        except OSError:
            # The broker has closed the connection. What it sent before can still be read.
            pass

    def send(self, channel, method):
        self.write(frame.Method(channel, method).marshal())

    def frame(self, kind, channel, payload, end=b"\xce"):
        """Sends a frame of any bytes."""
        self.write(struct.pack(">BHI", kind, channel, len(payload)) + payload + end)

    def header(self, channel, size, properties=b"\0\0", class_id=60):
        """Sends a content header with raw properties."""
        self.frame(spec.FRAME_HEADER, channel, struct.pack(">HHQ", class_id, 0, size) + properties)

    def publish(self, channel, exchange, key, body=b"", properties=None, raw=None, mandatory=False, immediate=False):
        """Publishes; `properties` are pika's, `raw` are bytes."""
        if isinstance(body, str):
            body = body.encode()
        if raw is None:
            raw = b"".join((properties or spec.BasicProperties()).encode())
        self.send(channel, spec.Basic.Publish(0, exchange, key, mandatory, immediate))
        self.header(channel, len(body), raw)
        size = self.frame_max - 8
        for start in range(0, len(body), size):
            self.frame(spec.FRAME_BODY, channel, body[start : start + size])
        if channel in self._published:
            self._published[channel] += 1

    def ask(self, channel, method, *replies):
        """Sends a method and returns its reply: the normal one, or a Close of the channel or the connection."""
        self.send(channel, method)
        return self.wait(channel, *(replies or _replies(method)))

    def channel(self, *numbers):
        for number in numbers or (1,):
            self.ask(number, spec.Channel.Open())
        return self

    def confirming(self, channel=1):
        """Puts the channel into confirm mode."""
        self.ask(channel, spec.Confirm.Select())
        self.count_confirms(channel)
        return self

    def count_confirms(self, channel):
        self._published[channel] = 0
        self.confirms[channel] = {}

    # Receiving

    def wait(self, channel, *kinds):
        """Reads until one of these methods is received on the channel, or a Close of the channel or the connection."""
        end = time.monotonic() + PATIENCE
        while True:
            event = self.read(max(0.0, end - time.monotonic()))
            if event is None:
                raise NotReceived(f"waited for {[kind.NAME for kind in kinds]} on channel {channel}")
            if event is ENDED:
                return ENDED
            if event is HEARTBEAT:
                continue
            number, method = event
            if isinstance(method, spec.Connection.Close):
                return method
            if number == channel and isinstance(method, (*kinds, spec.Channel.Close)):
                return method

    def take(self, channel, count):
        """Waits for so many deliveries on the channel and returns their bodies. Earlier deliveries that were not taken count."""
        waiting = self._deliveries.setdefault(channel, [])
        while len(waiting) < count:
            self._expect(channel, f"got {len(waiting)} of {count} deliveries on channel {channel}")
        taken, waiting[:count] = waiting[:count], []
        return [it.body for it in taken]

    def settle(self, channel=1):
        """Waits until everything published on the channel is confirmed. Records and returns the confirms in the order of their tags."""
        known = self.confirms[channel]
        while len(known) < self._published[channel]:
            self._expect(channel, f"{len(known)} of {self._published[channel]} messages are confirmed")
        words = [known[tag] for tag in sorted(known)]
        runs = [f"{len(list(run))} {word}" for word, run in itertools.groupby(words)]
        self._record(channel, f"confirms: {', '.join(runs)}")
        return words

    def _expect(self, channel, sofar):
        """Reads an event that is no heartbeat."""
        event = HEARTBEAT
        end = time.monotonic() + PATIENCE
        while event is HEARTBEAT:
            event = self.read(max(0.0, end - time.monotonic()))
        if event is None:
            raise NotReceived(f"{sofar}, then nothing was received")
        if event is ENDED or isinstance(event[1], spec.Connection.Close):
            raise NotReceived(f"{sofar}, then the connection ended")
        if event[0] == channel and isinstance(event[1], spec.Channel.Close):
            raise NotReceived(f"{sofar}, then the channel was closed")

    def quiet(self, seconds=0.15):
        """Reads until nothing but heartbeats was received for so long."""
        latest = time.monotonic() + 4 * PATIENCE
        end = time.monotonic() + seconds
        while (event := self.read(max(0.0, end - time.monotonic()))) not in (None, ENDED):
            if event is not HEARTBEAT:
                end = time.monotonic() + seconds
            if time.monotonic() > latest:
                raise NotReceived("the broker does not stop sending")

    def wait_for_end(self):
        """Reads until the connection has ended."""
        end = time.monotonic() + PATIENCE
        while not self.ended:
            if self.read(max(0.0, end - time.monotonic())) is None:
                raise NotReceived("the connection has not ended")

    def read(self, timeout=PATIENCE):
        """The next event: channel and method (with its content), HEARTBEAT, ENDED, or `None` after `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            got = self._frame(max(0.0, end - time.monotonic()))
            if got is None or got is ENDED:
                return got
            event = self._interpret(*got)
            if event is not None:
                return event

    def _frame(self, timeout):
        if self.ended:
            return ENDED
        end = time.monotonic() + timeout
        while True:
            if self._input[:4] == b"AMQP" and len(self._input) >= 8:
                self._record(0, f"protocol header {self._input[:8]!r}")
                self._input = self._input[8:]
                continue
            if len(self._input) >= 7:
                kind, channel, size = struct.unpack_from(">BHI", self._input)
                if len(self._input) >= size + 8:
                    payload, mark = self._input[7 : 7 + size], self._input[7 + size]
                    assert mark == spec.FRAME_END, f"a frame from the broker ends with {mark:#x}"
                    self._input = self._input[8 + size :]
                    return kind, channel, payload
            left = end - time.monotonic()
            self._socket.settimeout(max(left, 0.0001))
            try:
                data = self._socket.recv(1 << 20)
            except TimeoutError:
                if left <= 0:
                    return None
                continue
            except ConnectionError:
                data = b""
            if not data:
                self.ended = True
                self._socket.close()
                self._record(0, ENDED)
                return ENDED
            self._input += data

    def _interpret(self, kind, channel, payload):
        if kind == spec.FRAME_HEARTBEAT:
            return HEARTBEAT
        if kind == spec.FRAME_METHOD:
            method = spec.methods[struct.unpack_from(">I", payload)[0]]()
            method.decode(payload, 4)
            if not isinstance(method, WITH_CONTENT):
                return self._received(channel, method)
            self._content[channel] = method
            method.body = b""
        elif kind == spec.FRAME_HEADER:
            method = self._content[channel]
            _, _, method.size = struct.unpack_from(">HHQ", payload)
            method.properties = payload[12:]
        elif kind == spec.FRAME_BODY:
            method = self._content[channel]
            method.body += payload
            self.body_frames.append(len(payload))
        else:
            raise AssertionError(f"a frame from the broker has type {kind}")
        if getattr(method, "size", None) != len(method.body):
            return None
        return self._received(channel, self._content.pop(channel))

    def _received(self, channel, method):
        if isinstance(method, (spec.Basic.Ack, spec.Basic.Nack)):
            self._confirmed(channel, method)
            return channel, method
        if isinstance(method, spec.Basic.Return):
            self.returned += 1
        if isinstance(method, spec.Basic.Deliver):
            self._deliveries.setdefault(channel, []).append(method)
        self._record(channel, describe(method))
        if isinstance(method, spec.Channel.Close):
            self.send(channel, spec.Channel.CloseOk())
        if isinstance(method, spec.Connection.Close):
            self.send(0, spec.Connection.CloseOk())
        return channel, method

    def _confirmed(self, channel, method):
        """Records each confirm by its message: which of them the broker combines with `multiple` is not compared."""
        known = self.confirms.setdefault(channel, {})
        tags = range(1, method.delivery_tag + 1) if method.multiple else [method.delivery_tag]
        word = method.NAME.split(".")[1].lower()
        for tag in tags:
            if method.multiple and tag in known:
                continue
            assert tag not in known, f"message {tag} was confirmed twice"
            known[tag] = word

    # Closing

    def close(self):
        """Closes the connection in an orderly way."""
        if not self.ended:
            self.ask(0, spec.Connection.Close(200, "bye", 0, 0))
            self.drop()

    def drop(self):
        """Closes the socket without a Close."""
        self._socket.close()
        self.ended = True


def _replies(method):
    """The methods that answer this one."""
    group, _, name = method.NAME.partition(".")
    group = getattr(spec, group)
    if name == "Get":
        return (group.GetOk, group.GetEmpty)
    return (getattr(group, f"{name}Ok"),)


def describe(method):
    """A line that must be equal for both brokers. It leaves out what a server may choose: generated names, and the text after
    a reply code's name."""
    fields = [f"{name}={_plain(name, value)}" for name, value in vars(method).items() if name != "size"]
    return " ".join([method.NAME.lower(), *fields])


def _plain(name, value):
    if name == "reply_text":
        return value.split(" ")[0]
    if name == "properties" and isinstance(value, bytes):
        return value.hex() if len(value) <= 100 else _digest(value)
    if isinstance(value, bytes):
        return repr(value) if len(value) <= 100 else _digest(value)
    if isinstance(value, str):
        return repr(re.sub(r"^amq\.(gen|ctag)-.*", r"amq.\1-…", value))
    if isinstance(value, dict):
        return repr(dict(sorted(value.items())))
    return repr(value)


def _digest(value):
    return f"{len(value)} bytes with SHA-256 {hashlib.sha256(value).hexdigest()[:16]}"
