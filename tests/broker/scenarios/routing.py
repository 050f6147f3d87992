"""Routing: which queues a message reaches."""

from pika.spec import Basic, Exchange, Queue

from stage import scenario


def drain(peer, queue):
    """Takes everything out of a queue; each message is recorded."""
    while peer.ask(1, Basic.Get(queue=queue, no_ack=True)).NAME == "Basic.GetOk":
        pass


@scenario
def the_default_exchange_reaches_a_queue_by_its_name(stage):
    peer = stage.connect().confirming()
    for short in ("a", "b"):
        peer.ask(1, Queue.Declare(queue=stage.name(short)))
    for short in ("b", "a", "b", "nobody"):
        peer.publish(1, "", stage.name(short), short)
    peer.settle()
    drain(peer, stage.name("a"))
    drain(peer, stage.name("b"))


@scenario
def a_direct_exchange_compares_keys(stage):
    peer = stage.connect().confirming()
    exchange = stage.name("x")
    peer.ask(1, Exchange.Declare(exchange=exchange, type="direct"))
    for short, keys in {"a": ["k", "l"], "b": ["k"], "c": ["k.*", "#"], "d": [""]}.items():
        peer.ask(1, Queue.Declare(queue=stage.name(short)))
        for key in keys:
            peer.ask(1, Queue.Bind(queue=stage.name(short), exchange=exchange, routing_key=key))
    for key in ("k", "l", "K", "k.1", "", "#"):
        peer.publish(1, exchange, key, f"to {key}")
    peer.settle()
    for short in "abcd":
        drain(peer, stage.name(short))


@scenario
def a_fanout_exchange_ignores_keys(stage):
    peer = stage.connect().confirming()
    exchange = stage.name("x")
    peer.ask(1, Exchange.Declare(exchange=exchange, type="fanout"))
    for short in "ab":
        peer.ask(1, Queue.Declare(queue=stage.name(short)))
        peer.ask(1, Queue.Bind(queue=stage.name(short), exchange=exchange, routing_key=short))
    # It is bound twice, and gets the message once.
    peer.ask(1, Queue.Bind(queue=stage.name("a"), exchange=exchange, routing_key="again"))
    peer.publish(1, exchange, "whatever", "m")
    peer.settle()
    drain(peer, stage.name("a"))
    drain(peer, stage.name("b"))


PATTERNS = [
    "*",
    "#",
    "a",
    "a.b",
    "a.*",
    "*.b",
    "a.#",
    "#.b",
    "a.*.c",
    "a.#.c",
    "#.#",
    "*.*",
    "*.#",
    "#.*",
    "a.#.#.c",
    "",
    "a..c",
    "*..c",
]
KEYS = ["", "a", "b", "a.b", "a.b.c", "a.c", "a.x.y.c", "a.", ".b", "a..c", "..", "#", "*", "a.*", "A", "x.b"]


@scenario
def a_topic_exchange_matches_patterns(stage):
    peer = stage.connect().confirming()
    exchange = stage.name("x")
    peer.ask(1, Exchange.Declare(exchange=exchange, type="topic"))
    for number, pattern in enumerate(PATTERNS):
        peer.ask(1, Queue.Declare(queue=stage.name(str(number))))
        peer.ask(1, Queue.Bind(queue=stage.name(str(number)), exchange=exchange, routing_key=pattern))
    for key in KEYS:
        peer.publish(1, exchange, key, key)
    peer.settle()
    for number, pattern in enumerate(PATTERNS):
        stage.note(f"{pattern!r} matches {matched(stage, stage.name(str(number)))}")


def matched(stage, queue):
    peer = stage.connect()
    count = peer.ask(1, Queue.Declare(queue=queue, passive=True)).message_count
    bodies = [peer.ask(1, Basic.Get(queue=queue, no_ack=True)).body.decode() for _ in range(count)]
    peer.close()
    return bodies


@scenario
def several_matching_bindings_deliver_once(stage):
    peer = stage.connect().confirming()
    exchange, queue = stage.name("x"), stage.name("q")
    peer.ask(1, Exchange.Declare(exchange=exchange, type="topic"))
    peer.ask(1, Queue.Declare(queue=queue))
    for pattern in ("a.b", "a.*", "#", "a.b"):
        peer.ask(1, Queue.Bind(queue=queue, exchange=exchange, routing_key=pattern))
    peer.publish(1, exchange, "a.b", "once")
    peer.settle()
    drain(peer, queue)


@scenario
def an_unbound_queue_gets_nothing_more(stage):
    peer = stage.connect().confirming()
    exchange, queue = stage.name("x"), stage.name("q")
    peer.ask(1, Exchange.Declare(exchange=exchange, type="topic"))
    peer.ask(1, Queue.Declare(queue=queue))
    for pattern in ("a", "#"):
        peer.ask(1, Queue.Bind(queue=queue, exchange=exchange, routing_key=pattern))
    peer.publish(1, exchange, "a", "1")
    peer.ask(1, Queue.Unbind(queue=queue, exchange=exchange, routing_key="#"))
    peer.publish(1, exchange, "a", "2")
    peer.publish(1, exchange, "b", "3")
    peer.ask(1, Queue.Unbind(queue=queue, exchange=exchange, routing_key="a"))
    peer.publish(1, exchange, "a", "4")
    peer.settle()
    drain(peer, queue)


@scenario
def bindings_go_with_their_queue_and_their_exchange(stage):
    peer = stage.connect(1, 2).confirming()
    exchange, queue = stage.name("x"), stage.name("q")
    for _ in range(2):
        peer.ask(1, Exchange.Declare(exchange=exchange, type="fanout"))
        peer.ask(1, Queue.Declare(queue=queue))
        peer.publish(1, exchange, "", "not bound", mandatory=True)
        peer.ask(1, Queue.Bind(queue=queue, exchange=exchange))
        peer.publish(1, exchange, "", "bound", mandatory=True)
        peer.settle()
        peer.ask(1, Queue.Delete(queue=queue))
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(1, Queue.Bind(queue=queue, exchange=exchange))
    peer.ask(1, Exchange.Delete(exchange=exchange))
    peer.ask(1, Exchange.Declare(exchange=exchange, type="fanout"))
    peer.publish(1, exchange, "", "not bound", mandatory=True)
    peer.settle()


@scenario
def bindings_with_other_arguments_are_others(stage):
    peer = stage.connect().confirming()
    exchange, queue = stage.name("x"), stage.name("q")
    peer.ask(1, Exchange.Declare(exchange=exchange, type="direct"))
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(1, Queue.Bind(queue=queue, exchange=exchange, routing_key="k", arguments={"a": 1}))
    peer.ask(1, Queue.Bind(queue=queue, exchange=exchange, routing_key="k", arguments={"a": 2}))
    peer.ask(1, Queue.Unbind(queue=queue, exchange=exchange, routing_key="k", arguments={"a": 1}))
    peer.publish(1, exchange, "k", "still bound")
    peer.settle()
    drain(peer, queue)


@scenario
def exchanges_are_bound_to_exchanges(stage):
    peer = stage.connect().confirming()
    source, target, queue = stage.name("source"), stage.name("target"), stage.name("q")
    peer.ask(1, Exchange.Declare(exchange=source, type="topic"))
    peer.ask(1, Exchange.Declare(exchange=target, type="direct"))
    peer.ask(1, Exchange.Bind(destination=target, source=source, routing_key="a.#"))
    # A circle of bindings must not loop.
    peer.ask(1, Exchange.Bind(destination=source, source=target, routing_key="a.b"))
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(1, Queue.Bind(queue=queue, exchange=target, routing_key="a.b"))
    for key in ("a.b", "a.c", "b.b"):
        peer.publish(1, source, key, key, mandatory=True)
    peer.settle()
    drain(peer, queue)
    peer.ask(1, Exchange.Unbind(destination=target, source=source, routing_key="a.#"))
    peer.publish(1, source, "a.b", "unbound", mandatory=True)
    peer.settle()


@scenario
def publishing_to_a_missing_exchange(stage):
    peer = stage.connect()
    peer.publish(1, stage.name("x"), "k", "m")
    peer.quiet()
    # The channel was closed; its number can be used again.
    peer.channel(1)


@scenario
def publishing_to_an_internal_exchange(stage):
    peer = stage.connect(1, 2).confirming()
    front, internal, queue = stage.name("front"), stage.name("internal"), stage.name("q")
    peer.ask(1, Exchange.Declare(exchange=front, type="fanout"))
    peer.ask(1, Exchange.Declare(exchange=internal, type="fanout", internal=True))
    peer.ask(1, Exchange.Bind(destination=internal, source=front))
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(1, Queue.Bind(queue=queue, exchange=internal))
    peer.publish(1, front, "", "through the front")
    peer.settle()
    drain(peer, queue)
    peer.publish(2, internal, "", "directly")
    peer.quiet()
