"""Properties and bodies: consumers get them byte for byte as they were published."""

import struct

from pika.spec import Basic, BasicProperties, Queue

from stage import scenario


def field(name, kind, value=b""):
    return bytes([len(name)]) + name.encode() + kind.encode() + value


def sized(value):
    return struct.pack(">I", len(value)) + value


# A field of every type in RabbitMQ's dialect, with extreme values.
EVERY_TYPE = b"".join(
    [
        field("bool true", "t", b"\x01"),
        field("bool false", "t", b"\x00"),
        field("int8", "b", b"\x80"),
        field("uint8", "B", b"\xff"),
        field("int16", "s", b"\x80\x00"),
        field("uint16", "u", b"\xff\xff"),
        field("int32", "I", b"\x80\x00\x00\x00"),
        field("uint32", "i", b"\xff\xff\xff\xff"),
        field("int64", "l", b"\x80" + bytes(7)),
        field("float", "f", struct.pack(">f", 1.5)),
        field("double", "d", struct.pack(">d", -0.1)),
        field("decimal", "D", b"\x02\x00\x00\x01\x00"),
        field("long string", "S", sized("héllo".encode())),
        field("long string that is no text", "S", sized(b"\xff\xfe\x00")),
        field("bytes", "x", sized(bytes(range(256)))),
        field("timestamp", "T", struct.pack(">Q", 1_700_000_000)),
        field("void", "V"),
        field("array", "A", sized(b"t\x01" + b"V" + b"S" + sized(b"x") + b"A" + sized(b""))),
        field("table", "F", sized(field("inner", "F", sized(field("", "V"))))),
        field("empty table", "F", sized(b"")),
        field("twice", "t", b"\x01"),
        field("twice", "t", b"\x00"),
    ]
)
HEADERS = 1 << 13


def there_and_back(stage, *messages):
    """Publishes messages, given as raw properties and body, and notes whether they are delivered unchanged."""
    peer = stage.connect().confirming()
    peer.ask(1, Queue.Declare(queue=stage.name("q")))
    for raw, body in messages:
        peer.publish(1, "", stage.name("q"), body, raw=raw)
    peer.settle()
    for raw, body in messages:
        got = peer.ask(1, Basic.Get(queue=stage.name("q"), no_ack=True))
        stage.note(f"properties unchanged: {got.properties == raw}; body unchanged: {got.body == body}")


@scenario
def header_tables_of_every_type(stage):
    there_and_back(stage, (struct.pack(">H", HEADERS) + sized(EVERY_TYPE), b"m"))


@scenario
def a_signed_long_of_the_standard(stage):
    """The specification calls it `L`; RabbitMQ reads and writes `l`."""
    there_and_back(stage, (struct.pack(">H", HEADERS) + sized(field("n", "L", bytes(8))), b"m"))


@scenario
def header_tables_within_tables(stage):
    value = b"V"
    for _ in range(14):
        value = b"F" + sized(bytes([1]) + b"k" + value)
        value = b"A" + sized(value)
    there_and_back(stage, (struct.pack(">H", HEADERS) + sized(b"\x01k" + value), b"m"))


@scenario
def header_tables_nested_too_deep(stage):
    peer = stage.connect(1, 2)
    peer.ask(1, Queue.Declare(queue=stage.name("q")))
    value = b"V"
    for _ in range(40):
        value = b"A" + sized(value)
    peer.publish(2, "", stage.name("q"), "m", raw=struct.pack(">H", HEADERS) + sized(b"\x01k" + value))
    if not isinstance(peer.ask(2, Queue.Declare(queue=stage.name("q"), passive=True)), Queue.DeclareOk):
        peer.wait_for_end()


@scenario
def all_fourteen_properties(stage):
    properties = BasicProperties(
        content_type="application/json",
        content_encoding="utf-8",
        headers={"a": 1, "b": ["x", {"c": None}]},
        delivery_mode=2,
        priority=5,
        correlation_id="correlation",
        reply_to="reply",
        expiration="600000",
        message_id="message",
        timestamp=1_700_000_000,
        type="type",
        user_id="guest",
        app_id="app",
        cluster_id="cluster",
    )
    there_and_back(stage, (b"".join(properties.encode()), b"m"))


@scenario
def properties_one_by_one(stage):
    singles = [
        BasicProperties(content_type=""),
        BasicProperties(content_encoding="é"),
        BasicProperties(headers={}),
        BasicProperties(delivery_mode=1),
        BasicProperties(priority=255),
        BasicProperties(message_id="x" * 255),
        BasicProperties(timestamp=2**63 - 1),
        BasicProperties(cluster_id="c"),
    ]
    there_and_back(stage, *((b"".join(it.encode()), b"m") for it in singles))


@scenario
def an_unknown_delivery_mode(stage):
    peer = stage.connect(1, 2)
    peer.ask(1, Queue.Declare(queue=stage.name("q")))
    for channel, mode in ((1, 0), (2, 7)):
        # pika leaves out a zero.
        peer.publish(channel, "", stage.name("q"), "m", raw=struct.pack(">HB", 1 << 12, mode))
        peer.quiet()


@scenario
def bodies_of_many_sizes(stage):
    # No body, and sizes around that of a frame.
    sizes = [0, 1, 4_087, 4_088, 4_089, 131_063, 131_064, 131_065, 262_144, 1 << 20]
    pattern = bytes(range(256)) * 4_096
    there_and_back(stage, *((b"\0\0", pattern[:size]) for size in sizes))


@scenario
def an_empty_body_is_consumed(stage):
    peer = stage.connect(1, 2)
    peer.ask(1, Queue.Declare(queue=stage.name("q")))
    peer.ask(2, Basic.Consume(queue=stage.name("q"), consumer_tag="c"))
    peer.publish(1, "", stage.name("q"), b"")
    peer.publish(1, "", stage.name("q"), b"not empty")
    peer.take(2, 2)


@scenario
def a_body_in_frames_of_any_size(stage):
    peer = stage.connect().confirming()
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    peer.send(1, Basic.Publish(0, "", queue))
    peer.header(1, 10)
    for part in (b"0", b"", b"1234", b"56789"):
        peer.frame(3, 1, part)
    peer.count_confirms(1)
    peer.publish(1, "", queue, "next")
    peer.quiet()
    peer.ask(1, Basic.Get(queue=queue))
    peer.ask(1, Basic.Get(queue=queue))


@scenario
def channels_interleave_their_content(stage):
    peer = stage.connect(1, 2).confirming(1).confirming(2)
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    for channel in (1, 2):
        peer.send(channel, Basic.Publish(0, "", queue))
    for channel in (2, 1):
        peer.header(channel, 4)
    peer.frame(3, 1, b"on")
    peer.frame(3, 2, b"tw")
    peer.frame(3, 1, b"e!")
    peer.quiet()
    peer.frame(3, 2, b"o!")
    peer.quiet()
    peer.ask(1, Basic.Get(queue=queue))
    peer.ask(1, Basic.Get(queue=queue))


@scenario
def bodies_are_cut_to_the_agreed_frames(stage):
    publisher = stage.connect().confirming()
    queue = stage.name("q")
    publisher.ask(1, Queue.Declare(queue=queue))
    publisher.publish(1, "", queue, b"x" * 10_000)
    publisher.settle()
    peer = stage.connect(frame_max=4_096)
    peer.ask(1, Basic.Get(queue=queue))
    stage.note(peer.body_frames)


@scenario
def the_user_id_of_a_message(stage):
    """The property `user_id` must be the publisher's own."""
    peer = stage.connect(1, 2).confirming()
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    peer.publish(1, "", queue, "mine", BasicProperties(user_id="guest"))
    peer.settle()
    peer.publish(2, "", queue, "another's", BasicProperties(user_id="limited"))
    peer.quiet()
