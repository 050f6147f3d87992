"""The handshake, heartbeats, and closing a connection."""

from pika.spec import Channel, Connection, Queue

from peer import HEARTBEAT
from stage import scenario


@scenario
def a_connection_opens_and_closes(stage):
    peer = stage.peer()
    greet(stage, peer)
    peer.start_ok("guest", "guest")
    peer.send(0, Connection.TuneOk(2_047, 131_072, 60))
    peer.ask(0, Connection.Open("/"))
    peer.channel(1)
    peer.close()


def greet(stage, peer):
    """The first bytes and Connection.Start, of which only the fields are noted that must be the same."""
    peer.silent = True
    peer.write(b"AMQP\x00\x00\x09\x01")
    start = peer.wait(0, Connection.Start)
    peer.silent = False
    stage.note(f"version {start.version_major}.{start.version_minor}, locales {start.locales!r}")
    stage.note(f"offers PLAIN: {b'PLAIN' in start.mechanisms.split()}")


@scenario
def the_properties_of_the_server(stage):
    peer = stage.peer()
    peer.silent = True
    peer.write(b"AMQP\x00\x00\x09\x01")
    start = peer.wait(0, Connection.Start)
    stage.note(f"mechanisms {sorted(start.mechanisms.split())}")
    stage.note(f"capabilities {sorted(start.server_properties['capabilities'])}")


@scenario
def other_protocols_are_sent_the_header_of_ours(stage):
    for greeting in (b"AMQP\x00\x01\x00\x00", b"AMQP\x01\x01\x00\x0a", b"HTTP/1.1", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 8):
        peer = stage.peer()
        peer.write(greeting)
        peer.wait_for_end()


@scenario
def the_headers_of_older_versions(stage):
    """AMQP 0-9 and 0-8."""
    for greeting in (b"AMQP\x01\x01\x00\x09", b"AMQP\x01\x01\x08\x00", b"AMQP\x01\x01\x09\x01"):
        peer = stage.peer()
        peer.silent = True
        peer.write(greeting)
        peer.quiet(0.5)
        peer.silent = False
        stage.note(f"{greeting!r}: {'ended' if peer.ended else 'goes on'}")


@scenario
def a_wrong_password_is_reported_to_a_client_that_understands_it(stage):
    peer = stage.peer()
    greet(stage, peer)
    peer.start_ok("guest", "wrong")
    peer.wait_for_end()


@scenario
def a_wrong_password_ends_the_connection_of_an_old_client(stage):
    peer = stage.peer()
    greet(stage, peer)
    peer.start_ok("guest", "wrong", capabilities={})
    peer.wait_for_end()


@scenario
def an_unknown_user(stage):
    peer = stage.peer()
    greet(stage, peer)
    peer.start_ok("nobody", "guest")
    peer.wait_for_end()


@scenario
def an_unknown_mechanism(stage):
    peer = stage.peer()
    greet(stage, peer)
    peer.start_ok("guest", "guest", mechanism="SCRAM-SHA-256")
    peer.wait_for_end()


@scenario
def a_response_not_in_the_form_of_plain(stage):
    peer = stage.peer()
    greet(stage, peer)
    peer.send(0, Connection.StartOk({"capabilities": {"authentication_failure_close": True}}, "PLAIN", "guest", "en_US"))
    peer.wait_for_end()


@scenario
def an_unknown_virtual_host(stage):
    peer = stage.peer()
    greet(stage, peer)
    peer.start_ok("guest", "guest")
    peer.send(0, Connection.TuneOk(2_047, 131_072, 0))
    peer.ask(0, Connection.Open("nowhere"))
    peer.wait_for_end()


@scenario
def tuning_beyond_the_offer(stage):
    for channels, frame in ((4_000, 131_072), (2_047, 200_000), (2_047, 100), (0, 0)):
        peer = stage.peer()
        greet(stage, peer)
        peer.start_ok("guest", "guest")
        peer.send(0, Connection.TuneOk(channels, frame, 0))
        peer.ask(0, Connection.Open("/"))
        peer.quiet()


@scenario
def a_channel_beyond_the_agreed_number(stage):
    peer = stage.connect(1, 2, channel_max=2)
    peer.ask(3, Channel.Open())
    peer.wait_for_end()


@scenario
def a_method_before_the_connection_is_open(stage):
    peer = stage.peer()
    greet(stage, peer)
    peer.start_ok("guest", "guest")
    peer.send(0, Connection.TuneOk(2_047, 131_072, 0))
    peer.ask(1, Channel.Open())
    peer.quiet(1)


@scenario
def the_handshake_out_of_order(stage):
    for method in (Connection.Open("/"), Connection.TuneOk(2_047, 131_072, 0)):
        peer = stage.peer()
        greet(stage, peer)
        peer.send(0, method)
        peer.wait_for_end()


@scenario
def heartbeats_as_the_client_asks(stage):
    peer = stage.connect(heartbeat=1)
    stage.note(f"a heartbeat comes: {peer.read(3) is HEARTBEAT}")
    # A client that sends nothing for two heartbeats is lost.
    peer.wait_for_end()


@scenario
def heartbeats_keep_a_connection(stage):
    peer = stage.connect(heartbeat=1)
    for _ in range(3):
        assert peer.read() is HEARTBEAT
        peer.frame(8, 0, b"")
    peer.ask(1, Queue.Declare(exclusive=True))


@scenario
def methods_count_as_heartbeats(stage):
    """Anything that is received counts as a heartbeat."""
    peer = stage.connect(heartbeat=1)
    for _ in range(6):
        peer.quiet(0.5)
        peer.send(1, Channel.Flow(active=True))
    peer.quiet(0.2)
    stage.note(f"ended: {peer.ended}")


@scenario
def a_client_that_closes_with_open_channels(stage):
    peer = stage.connect(1, 2, 3)
    peer.ask(2, Channel.Close(200, "bye", 0, 0))
    peer.channel(2)
    peer.close()


@scenario
def nothing_is_answered_after_a_close(stage):
    """Methods after a Close are ignored."""
    peer = stage.connect()
    peer.send(0, Connection.Close(200, "bye", 0, 0))
    peer.send(1, Queue.Declare(queue=stage.name("q")))
    peer.wait(0, Connection.CloseOk)
    # Which side closes the socket first is not specified.
    peer.silent = True
    peer.quiet()
    other = stage.connect()
    other.ask(1, Queue.Declare(queue=stage.name("q"), passive=True))
