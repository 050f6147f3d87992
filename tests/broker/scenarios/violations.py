"""Violations of the protocol: which reply code closes what, the channel or the connection, and names which method.

The connection must end where a scenario waits for its end, with a Close or without.
"""

import struct

from pika.spec import Basic, Channel, Confirm, Connection, Exchange, Queue

from stage import scenario

METHOD, HEADER, BODY, BEAT = 1, 2, 3, 8


@scenario
def a_frame_with_a_wrong_end_octet(stage):
    peer = stage.connect()
    peer.frame(METHOD, 1, struct.pack(">HH", 20, 10) + b"\0", end=b"\0")
    peer.wait_for_end()


@scenario
def a_frame_of_an_unknown_type(stage):
    for kind in (0, 4, 7, 255):
        peer = stage.connect()
        peer.frame(kind, 1, b"abc")
        peer.wait_for_end()


@scenario
def a_frame_larger_than_agreed(stage):
    peer = stage.connect(frame_max=4_096)
    peer.ask(1, Queue.Declare(queue=stage.name("q")))
    peer.send(1, Basic.Publish(0, "", stage.name("q")))
    peer.header(1, 5_000)
    peer.frame(BODY, 1, b"x" * 5_000)
    peer.wait_for_end()


@scenario
def a_frame_as_large_as_agreed(stage):
    peer = stage.connect(frame_max=4_096).confirming()
    peer.ask(1, Queue.Declare(queue=stage.name("q")))
    peer.publish(1, "", stage.name("q"), b"x" * (4_096 - 8))
    peer.settle()


@scenario
def an_unknown_method(stage):
    for group, method in ((60, 99), (99, 10), (50, 0)):
        peer = stage.connect()
        peer.frame(METHOD, 1, struct.pack(">HH", group, method))
        peer.wait_for_end()


@scenario
def a_method_cut_short(stage):
    peer = stage.connect()
    peer.frame(METHOD, 1, struct.pack(">HHH", 50, 10, 0) + b"\x0aabc")
    peer.wait_for_end()


@scenario
def a_method_frame_too_short_for_its_ids(stage):
    peer = stage.connect()
    peer.frame(METHOD, 1, b"\0")
    peer.wait_for_end()


@scenario
def an_open_channel_opened(stage):
    peer = stage.connect()
    peer.ask(1, Channel.Open())
    peer.wait_for_end()


@scenario
def a_channel_that_was_never_opened(stage):
    peer = stage.connect()
    peer.ask(5, Queue.Declare(queue=stage.name("q")))
    peer.wait_for_end()


@scenario
def closing_a_channel_that_is_not_open(stage):
    peer = stage.connect()
    peer.send(4, Channel.Close(200, "bye", 0, 0))
    peer.quiet(0.5)
    stage.note(f"ended: {peer.ended}")


@scenario
def an_unexpected_close_ok(stage):
    peer = stage.connect(1, 2)
    peer.send(1, Channel.CloseOk())
    peer.quiet(0.5)
    stage.note(f"ended: {peer.ended}")


@scenario
def a_channel_s_method_on_channel_zero(stage):
    peer = stage.connect()
    peer.send(0, Queue.Declare(queue=stage.name("q")))
    peer.wait_for_end()


@scenario
def opening_channel_zero(stage):
    peer = stage.connect()
    peer.send(0, Channel.Open())
    peer.wait_for_end()


@scenario
def a_connection_s_method_on_a_channel(stage):
    peer = stage.connect()
    peer.send(1, Connection.Open("/"))
    peer.wait_for_end()


@scenario
def a_connection_opened_twice(stage):
    peer = stage.connect()
    peer.send(0, Connection.Open("/"))
    peer.wait_for_end()


@scenario
def methods_only_a_server_may_send(stage):
    for method in (Queue.DeclareOk("q", 0, 0), Basic.GetEmpty(), Channel.OpenOk(), Confirm.SelectOk()):
        peer = stage.connect()
        peer.send(1, method)
        peer.wait_for_end()


@scenario
def content_without_a_publish(stage):
    peer = stage.connect()
    peer.header(1, 3)
    peer.wait_for_end()
    other = stage.connect()
    other.frame(BODY, 1, b"abc")
    other.wait_for_end()


@scenario
def a_method_where_content_must_come(stage):
    for with_header in (False, True):
        peer = stage.connect()
        peer.send(1, Basic.Publish(0, "", "q"))
        if with_header:
            peer.header(1, 3)
        peer.send(1, Queue.Declare(queue=stage.name("q")))
        peer.wait_for_end()


@scenario
def a_body_where_a_header_must_come(stage):
    peer = stage.connect()
    peer.send(1, Basic.Publish(0, "", "q"))
    peer.frame(BODY, 1, b"abc")
    peer.wait_for_end()


@scenario
def two_headers(stage):
    peer = stage.connect()
    peer.send(1, Basic.Publish(0, "", "q"))
    peer.header(1, 3)
    peer.header(1, 3)
    peer.wait_for_end()


@scenario
def a_header_of_another_class(stage):
    peer = stage.connect()
    peer.send(1, Basic.Publish(0, "", "q"))
    peer.header(1, 3, class_id=50)
    peer.wait_for_end()


@scenario
def a_body_longer_than_its_header_said(stage):
    peer = stage.connect()
    peer.send(1, Basic.Publish(0, "", "q"))
    peer.header(1, 3)
    peer.frame(BODY, 1, b"abcdef")
    peer.quiet(0.5)
    stage.note(f"ended: {peer.ended}")


@scenario
def properties_cut_short(stage):
    peer = stage.connect()
    peer.ask(1, Queue.Declare(queue=stage.name("q")))
    peer.send(1, Basic.Publish(0, "", stage.name("q")))
    peer.header(1, 1, struct.pack(">H", 1 << 15) + b"\x0aabc")
    peer.frame(BODY, 1, b"m")
    peer.quiet(0.5)
    stage.note(f"ended: {peer.ended}")


@scenario
def a_header_table_of_an_unknown_type(stage):
    peer = stage.connect()
    peer.ask(1, Queue.Declare(queue=stage.name("q")))
    table = b"\x01k?"
    peer.send(1, Basic.Publish(0, "", stage.name("q")))
    peer.header(1, 1, struct.pack(">HI", 1 << 13, len(table)) + table)
    peer.frame(BODY, 1, b"m")
    peer.quiet(0.5)
    stage.note(f"ended: {peer.ended}")


@scenario
def an_argument_table_of_an_unknown_type(stage):
    peer = stage.connect()
    table = b"\x01k?"
    method = struct.pack(">HHH", 50, 10, 0) + b"\x01q" + b"\0" + struct.pack(">I", len(table)) + table
    peer.frame(METHOD, 1, method)
    peer.wait_for_end()


@scenario
def a_heartbeat_on_a_channel(stage):
    peer = stage.connect()
    peer.frame(BEAT, 1, b"")
    peer.wait_for_end()


@scenario
def a_heartbeat_with_a_body(stage):
    peer = stage.connect()
    peer.frame(BEAT, 0, b"abc")
    peer.wait_for_end()


@scenario
def methods_on_a_closing_channel_are_ignored(stage):
    peer = stage.connect(1, 2)
    queue, exchange = stage.name("q"), stage.name("x")
    peer.send(1, Queue.Declare(queue=stage.name("missing"), passive=True))
    peer.send(1, Queue.Declare(queue=queue))
    peer.publish(1, stage.name("nowhere"), "k", "m")
    peer.wait(1)
    peer.channel(1)
    peer.ask(2, Queue.Declare(queue=queue, passive=True))
    peer.ask(1, Exchange.Declare(exchange=exchange, type="fanout"))


@scenario
def both_sides_close_a_channel(stage):
    """The client's Close crosses the broker's: both are answered."""
    peer = stage.connect()
    peer.send(1, Queue.Declare(queue=stage.name("missing"), passive=True))
    peer.send(1, Channel.Close(200, "bye", 0, 0))
    peer.quiet(0.5)
    stage.note(f"ended: {peer.ended}")


@scenario
def a_channel_is_used_again(stage):
    peer = stage.connect()
    for _ in range(20):
        peer.ask(1, Queue.Declare(queue=stage.name("missing"), passive=True))
        peer.channel(1)
    peer.ask(1, Queue.Declare(exclusive=True))


@scenario
def closing_codes_of_channels_name_the_method(stage):
    peer = stage.connect(*range(1, 8))
    missing = stage.name("missing")
    peer.ask(1, Queue.Declare(queue=missing, passive=True))
    peer.ask(2, Exchange.Declare(exchange=missing, passive=True))
    peer.ask(3, Queue.Bind(queue=missing, exchange="amq.direct"))
    peer.ask(4, Queue.Purge(queue=missing))
    peer.ask(5, Basic.Consume(queue=missing))
    peer.ask(6, Basic.Get(queue=missing))
    peer.publish(7, missing, "k")
    peer.quiet()
