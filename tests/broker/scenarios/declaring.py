"""Declaring and deleting queues and exchanges."""

from pika.spec import Basic, Channel, Exchange, Queue

from peer import Peer
from stage import scenario


@scenario
def a_queue_is_declared_twice(stage):
    peer = stage.connect()
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(1, Queue.Declare(queue=queue, passive=True))


@scenario
def declaring_counts_messages_and_consumers(stage):
    peer = stage.connect().confirming()
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    for _ in range(3):
        peer.publish(1, "", queue, "m")
    peer.settle()
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(1, Basic.Qos(prefetch_count=1))
    peer.ask(1, Basic.Consume(queue=queue, consumer_tag="c"))
    peer.take(1, 1)
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(1, Queue.Declare(queue=queue, passive=True))


@scenario
def passive_declares_compare_no_attributes(stage):
    peer = stage.connect()
    queue, exchange = stage.name("q"), stage.name("x")
    peer.ask(1, Queue.Declare(queue=queue, auto_delete=True, arguments={"x-max-length": 5}))
    peer.ask(1, Queue.Declare(queue=queue, passive=True, durable=True))
    peer.ask(1, Exchange.Declare(exchange=exchange, type="topic", durable=True))
    peer.ask(1, Exchange.Declare(exchange=exchange, type="direct", passive=True))


@scenario
def passive_declare_of_a_missing_queue(stage):
    stage.connect().ask(1, Queue.Declare(queue=stage.name("q"), passive=True))


@scenario
def passive_declare_of_a_missing_exchange(stage):
    stage.connect().ask(1, Exchange.Declare(exchange=stage.name("x"), passive=True))


@scenario
def redeclaring_a_queue_with_other_attributes(stage):
    peer = stage.connect(1, 2, 3, 4, 5, 6)
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue, arguments={"x-message-ttl": 10_000}))
    peer.ask(2, Queue.Declare(queue=queue, durable=True, arguments={"x-message-ttl": 10_000}))
    peer.ask(3, Queue.Declare(queue=queue, auto_delete=True, arguments={"x-message-ttl": 10_000}))
    peer.ask(4, Queue.Declare(queue=queue))
    peer.ask(5, Queue.Declare(queue=queue, arguments={"x-message-ttl": 9_999}))
    # Exclusive or not is checked first, with another reply code.
    peer.ask(6, Queue.Declare(queue=queue, exclusive=True, arguments={"x-message-ttl": 10_000}))
    peer.ask(1, Queue.Declare(queue=queue, arguments={"x-message-ttl": 10_000}))


@scenario
def redeclaring_an_exchange_with_other_attributes(stage):
    peer = stage.connect(1, 2, 3, 4)
    exchange = stage.name("x")
    peer.ask(1, Exchange.Declare(exchange=exchange, type="topic"))
    peer.ask(1, Exchange.Declare(exchange=exchange, type="topic"))
    peer.ask(2, Exchange.Declare(exchange=exchange, type="fanout"))
    peer.ask(3, Exchange.Declare(exchange=exchange, type="topic", durable=True))
    peer.ask(4, Exchange.Declare(exchange=exchange, type="topic", auto_delete=True))


@scenario
def an_exchange_of_an_unknown_type(stage):
    stage.connect().ask(1, Exchange.Declare(exchange=stage.name("x"), type="bogus"))


@scenario
def an_exchange_of_type_headers(stage):
    stage.connect().ask(1, Exchange.Declare(exchange=stage.name("x"), type="headers"))


@scenario
def an_alternate_exchange(stage):
    arguments = {"alternate-exchange": "amq.fanout"}
    stage.connect().ask(1, Exchange.Declare(exchange=stage.name("x"), type="direct", arguments=arguments))


@scenario
def queues_of_other_kinds(stage):
    peers = [stage.connect() for _ in range(2)]
    for number, arguments in enumerate(({"x-max-priority": 5}, {"x-single-active-consumer": True})):
        peers[number].ask(1, Queue.Declare(queue=stage.name(f"q{number}"), arguments=arguments))


@scenario
def the_server_names_a_queue(stage):
    peer = stage.connect(1, 2).confirming()
    named = peer.ask(1, Queue.Declare(exclusive=True)).queue
    other = peer.ask(1, Queue.Declare(exclusive=True)).queue
    stage.note(named != other)
    # The empty name means the last one declared on the channel.
    peer.publish(1, "", other, "m")
    peer.settle()
    peer.ask(1, Queue.Bind(exchange="amq.fanout"))
    peer.ask(1, Basic.Get())
    peer.ask(1, Basic.Consume(consumer_tag="c"))
    peer.ask(1, Basic.Cancel(consumer_tag="c"))
    peer.ask(1, Queue.Purge())
    peer.ask(1, Queue.Delete())
    # In a declare that is not passive, the empty name asks for a new queue.
    peer.ask(2, Queue.Declare(exclusive=True))
    peer.ask(2, Queue.Declare(passive=True))


@scenario
def the_empty_name_without_a_declared_queue(stage):
    peer = stage.connect(1, 2, 3, 4, 5)
    peer.ask(1, Basic.Get())
    peer.ask(2, Basic.Consume(consumer_tag="c"))
    peer.ask(3, Queue.Purge())
    peer.ask(4, Queue.Delete())
    peer.ask(5, Queue.Bind(exchange="amq.fanout"))


@scenario
def names_of_the_server_are_reserved(stage):
    peer = stage.connect(*range(1, 9))
    peer.ask(1, Queue.Declare(queue="amq.mine"))
    peer.ask(2, Exchange.Declare(exchange="amq.mine"))
    peer.ask(3, Exchange.Declare(exchange="", type="direct"))
    peer.ask(4, Exchange.Delete(exchange="amq.direct"))
    peer.ask(5, Exchange.Delete(exchange=""))
    peer.ask(6, Exchange.Declare(exchange="amq.topic", type="topic", durable=True))
    peer.ask(6, Exchange.Declare(exchange="amq.topic", passive=True))
    peer.ask(7, Exchange.Declare(exchange="", passive=True))
    peer.ask(8, Queue.Declare(queue="amq.mine", passive=True))


@scenario
def the_default_exchange_takes_no_bindings(stage):
    peer = stage.connect(1, 2, 3)
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(1, Queue.Bind(queue=queue, exchange="", routing_key="k"))
    peer.ask(2, Queue.Unbind(queue=queue, exchange="", routing_key=queue))
    peer.ask(3, Exchange.Bind(destination="amq.fanout", source="", routing_key="k"))


@scenario
def the_predeclared_exchanges(stage):
    peer = stage.connect()
    for kind in ("direct", "fanout", "topic"):
        peer.ask(1, Exchange.Declare(exchange=f"amq.{kind}", type=kind, durable=True))


@scenario
def an_exclusive_queue_is_its_connection_s(stage):
    owner = stage.connect(1, 2)
    queue = stage.name("q")
    owner.ask(1, Queue.Declare(queue=queue, exclusive=True))
    owner.ask(2, Queue.Declare(queue=queue, exclusive=True))
    other = stage.connect(*range(1, 9))
    other.ask(1, Queue.Declare(queue=queue, exclusive=True))
    other.ask(2, Queue.Declare(queue=queue, passive=True))
    other.ask(3, Basic.Consume(queue=queue))
    other.ask(4, Basic.Get(queue=queue))
    other.ask(5, Queue.Purge(queue=queue))
    other.ask(6, Queue.Delete(queue=queue))
    other.ask(7, Queue.Bind(queue=queue, exchange="amq.fanout"))
    # Everybody may publish into it.
    other.confirming(8).publish(8, "", queue, "m")
    other.settle(8)
    owner.ask(1, Basic.Get(queue=queue, no_ack=True))
    owner.close()
    other.channel(9).ask(9, Queue.Declare(queue=queue, passive=True))


@scenario
def an_exclusive_queue_goes_with_a_lost_connection(stage):
    owner = stage.connect()
    queue = stage.name("q")
    owner.ask(1, Queue.Declare(queue=queue, exclusive=True))
    owner.drop()
    stage.note(gone(stage, queue))


@scenario
def an_auto_delete_queue_goes_with_its_last_consumer(stage):
    peer = stage.connect(1, 2, 3)
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue, auto_delete=True))
    peer.ask(1, Basic.Get(queue=queue))
    peer.ask(1, Basic.Consume(queue=queue, consumer_tag="a"))
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="b"))
    peer.ask(1, Basic.Cancel(consumer_tag="a"))
    peer.ask(3, Queue.Declare(queue=queue, passive=True))
    peer.ask(2, Basic.Cancel(consumer_tag="b"))
    stage.note(gone(stage, queue))


@scenario
def an_auto_delete_queue_goes_with_its_channel(stage):
    peer = stage.connect(1, 2)
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue, auto_delete=True))
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="a"))
    peer.ask(2, Channel.Close(200, "bye", 0, 0))
    stage.note(gone(stage, queue))


@scenario
def an_auto_delete_exchange_goes_with_its_last_binding(stage):
    peer = stage.connect(1, 2, 3)
    exchange, queue, other = stage.name("x"), stage.name("q"), stage.name("r")
    peer.ask(1, Exchange.Declare(exchange=exchange, type="direct", auto_delete=True))
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(1, Queue.Declare(queue=other))
    peer.ask(1, Queue.Bind(queue=queue, exchange=exchange, routing_key="a"))
    peer.ask(1, Queue.Bind(queue=other, exchange=exchange, routing_key="b"))
    peer.ask(1, Queue.Unbind(queue=queue, exchange=exchange, routing_key="a"))
    peer.ask(2, Exchange.Declare(exchange=exchange, passive=True))
    peer.ask(1, Queue.Delete(queue=other))
    peer.ask(3, Exchange.Declare(exchange=exchange, passive=True))


@scenario
def deleting_counts_and_is_idempotent(stage):
    peer = stage.connect().confirming()
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    for _ in range(4):
        peer.publish(1, "", queue, "m")
    peer.settle()
    peer.ask(1, Basic.Get(queue=queue))
    peer.ask(1, Queue.Delete(queue=queue))
    peer.ask(1, Queue.Delete(queue=queue))
    peer.ask(1, Exchange.Delete(exchange=stage.name("x")))


@scenario
def deleting_only_if_unused_or_empty(stage):
    peer = stage.connect(*range(1, 7)).confirming()
    queue, exchange = stage.name("q"), stage.name("x")
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(1, Exchange.Declare(exchange=exchange, type="fanout"))
    peer.ask(1, Queue.Bind(queue=queue, exchange=exchange))
    peer.ask(1, Basic.Consume(queue=queue, consumer_tag="c", no_ack=True))
    peer.ask(2, Queue.Delete(queue=queue, if_unused=True))
    peer.ask(3, Exchange.Delete(exchange=exchange, if_unused=True))
    peer.ask(1, Basic.Cancel(consumer_tag="c"))
    peer.publish(1, "", queue, "m")
    peer.settle()
    peer.ask(4, Queue.Delete(queue=queue, if_empty=True))
    peer.ask(5, Queue.Delete(queue=queue, if_unused=True))
    peer.ask(6, Exchange.Delete(exchange=exchange, if_unused=True))


@scenario
def purging_drops_what_waits(stage):
    peer = stage.connect(1, 2).confirming()
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    for _ in range(5):
        peer.publish(1, "", queue, "m")
    peer.settle()
    held = peer.ask(1, Basic.Get(queue=queue))
    peer.ask(1, Queue.Purge(queue=queue))
    peer.ask(1, Queue.Purge(queue=queue))
    # Unacknowledged messages are not purged.
    peer.send(1, Basic.Nack(delivery_tag=held.delivery_tag, requeue=True))
    peer.quiet()
    peer.ask(1, Queue.Declare(queue=queue, passive=True))
    peer.ask(2, Queue.Purge(queue=stage.name("missing")))


@scenario
def binding_missing_queues_and_exchanges(stage):
    peer = stage.connect(*range(1, 11))
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(2, Queue.Bind(queue=stage.name("missing"), exchange="amq.direct", routing_key="k"))
    peer.ask(3, Queue.Bind(queue=queue, exchange=stage.name("missing"), routing_key="k"))
    peer.ask(4, Queue.Unbind(queue=queue, exchange="amq.direct", routing_key="never bound"))
    peer.ask(5, Queue.Unbind(queue=stage.name("missing"), exchange="amq.direct", routing_key="k"))
    peer.ask(6, Queue.Unbind(queue=queue, exchange=stage.name("missing"), routing_key="k"))
    peer.ask(7, Exchange.Bind(destination=stage.name("missing"), source="amq.direct", routing_key="k"))
    peer.ask(8, Exchange.Bind(destination="amq.direct", source=stage.name("missing"), routing_key="k"))
    peer.ask(9, Exchange.Unbind(destination=stage.name("missing"), source="amq.direct", routing_key="k"))
    peer.ask(10, Exchange.Unbind(destination="amq.direct", source=stage.name("missing"), routing_key="k"))


@scenario
def declaring_without_waiting(stage):
    peer = stage.connect()
    queue, exchange = stage.name("q"), stage.name("x")
    peer.send(1, Queue.Declare(queue=queue, nowait=True))
    peer.send(1, Exchange.Declare(exchange=exchange, type="fanout", nowait=True))
    peer.send(1, Queue.Bind(queue=queue, exchange=exchange, nowait=True))
    peer.confirming().publish(1, exchange, "", "m")
    peer.settle()
    peer.send(1, Queue.Purge(queue=queue, nowait=True))
    peer.ask(1, Queue.Declare(queue=queue, passive=True))
    peer.send(1, Exchange.Delete(exchange=exchange, nowait=True))
    peer.send(1, Queue.Delete(queue=queue, nowait=True))
    peer.ask(1, Queue.Declare(queue=queue, passive=True))


@scenario
def invalid_arguments(stage):
    bad = [
        {"x-message-ttl": -1},
        {"x-message-ttl": "soon"},
        {"x-expires": 0},
        {"x-expires": "soon"},
        {"x-max-length": -1},
        {"x-max-length": "many"},
        {"x-max-length-bytes": -1},
        {"x-overflow": "burst"},
    ]
    peer = stage.connect(*range(1, len(bad) + 1))
    for channel, arguments in enumerate(bad, 1):
        peer.ask(channel, Queue.Declare(queue=stage.name(f"q{channel}"), arguments=arguments))


@scenario
def unknown_arguments(stage):
    peer = stage.connect()
    peer.ask(1, Queue.Declare(queue=stage.name("q"), arguments={"x-of-mine": {"a": [1, True, None]}}))
    peer.ask(1, Exchange.Declare(exchange=stage.name("x"), type="direct", arguments={"x-of-mine": "v"}))


@scenario
def a_name_of_255_bytes(stage):
    peer = stage.connect().confirming()
    queue = stage.name("q").ljust(255, "q")
    peer.ask(1, Queue.Declare(queue=queue))
    peer.publish(1, "", queue, "m")
    peer.settle()
    peer.ask(1, Queue.Delete(queue=queue))


def gone(stage, queue):
    """Waits, on a connection that is not recorded, until the broker has deleted a queue by itself."""
    for _ in range(100):
        peer = Peer(stage.port).open().channel(1)
        answer = peer.ask(1, Queue.Declare(queue=queue, passive=True))
        peer.close()
        if isinstance(answer, Channel.Close):
            return f"gone: {answer.reply_code}"
    return "still there"
