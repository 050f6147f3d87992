"""Consumers and their deliveries."""

from pika.spec import Basic, Channel, Queue

from stage import scenario


def fill(peer, queue, count, **options):
    """Declares a queue, publishes messages into it, and waits for their confirms."""
    peer.ask(1, Queue.Declare(queue=queue, **options))
    peer.confirming()
    for number in range(count):
        peer.publish(1, "", queue, f"{number}")
    peer.settle()


@scenario
def deliveries_come_in_order_with_tags_per_channel(stage):
    peer = stage.connect(1, 2, 3)
    fill(peer, stage.name("q"), 5)
    peer.ask(2, Basic.Consume(queue=stage.name("q"), consumer_tag="c"))
    peer.take(2, 5)
    peer.publish(1, "", stage.name("q"), "later")
    peer.settle()
    peer.take(2, 1)
    peer.ask(2, Basic.Cancel(consumer_tag="c"))
    peer.send(2, Basic.Nack(delivery_tag=0, multiple=True, requeue=True))
    peer.quiet()
    peer.ask(3, Basic.Consume(queue=stage.name("q"), consumer_tag="c"))
    peer.take(3, 6)


@scenario
def without_acknowledgements_nothing_is_requeued(stage):
    peer = stage.connect(1, 2)
    fill(peer, stage.name("q"), 3)
    peer.ask(2, Basic.Consume(queue=stage.name("q"), consumer_tag="c", no_ack=True))
    peer.take(2, 3)
    peer.ask(2, Channel.Close(200, "bye", 0, 0))
    peer.ask(1, Queue.Declare(queue=stage.name("q"), passive=True))


@scenario
def get_counts_what_remains(stage):
    peer = stage.connect(1, 2)
    fill(peer, stage.name("q"), 3)
    for no_ack in (True, False, False, False):
        peer.ask(1, Basic.Get(queue=stage.name("q"), no_ack=no_ack))
    peer.ask(1, Queue.Declare(queue=stage.name("q"), passive=True))
    peer.ask(2, Basic.Get(queue=stage.name("missing")))


@scenario
def consumer_tags(stage):
    peer = stage.connect(1, 2)
    fill(peer, stage.name("q"), 0)
    first = peer.ask(2, Basic.Consume(queue=stage.name("q"))).consumer_tag
    second = peer.ask(2, Basic.Consume(queue=stage.name("q"))).consumer_tag
    stage.note(first != second)
    # Each channel has its own consumer tags.
    peer.ask(1, Basic.Consume(queue=stage.name("q"), consumer_tag="same"))
    peer.ask(2, Basic.Consume(queue=stage.name("q"), consumer_tag="same"))
    peer.ask(2, Basic.Cancel(consumer_tag="unknown"))
    peer.ask(2, Queue.Declare(queue=stage.name("q"), passive=True))
    peer.ask(2, Basic.Consume(queue=stage.name("q"), consumer_tag="same"))
    peer.wait_for_end()


@scenario
def consuming_without_waiting(stage):
    peer = stage.connect(1, 2)
    fill(peer, stage.name("q"), 2)
    peer.send(2, Basic.Consume(queue=stage.name("q"), consumer_tag="c", nowait=True))
    peer.take(2, 2)
    peer.send(2, Basic.Cancel(consumer_tag="c", nowait=True))
    peer.ask(2, Queue.Declare(queue=stage.name("q"), passive=True))


@scenario
def consuming_a_missing_queue(stage):
    stage.connect().ask(1, Basic.Consume(queue=stage.name("q"), consumer_tag="c"))


@scenario
def an_exclusive_consumer_is_alone(stage):
    peer = stage.connect(1, 2, 3, 4)
    queue = stage.name("q")
    fill(peer, queue, 1)
    peer.ask(1, Basic.Consume(queue=queue, consumer_tag="first", exclusive=True))
    peer.take(1, 1)
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="second"))
    peer.ask(3, Basic.Consume(queue=queue, consumer_tag="third", exclusive=True))
    # A passive declare and a get are allowed.
    peer.ask(4, Queue.Declare(queue=queue, passive=True))
    peer.ask(4, Basic.Get(queue=queue))
    peer.ask(1, Basic.Cancel(consumer_tag="first"))
    peer.ask(4, Basic.Consume(queue=queue, consumer_tag="fourth", exclusive=True))


@scenario
def exclusive_is_refused_where_somebody_consumes(stage):
    peer = stage.connect(1, 2)
    queue = stage.name("q")
    fill(peer, queue, 0)
    peer.ask(1, Basic.Consume(queue=queue, consumer_tag="first"))
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="second", exclusive=True))


@scenario
def the_next_consumer_may_be_exclusive_once_the_first_is_lost(stage):
    first = stage.connect()
    queue = stage.name("q")
    fill(first, queue, 2)
    first.ask(1, Basic.Consume(queue=queue, consumer_tag="first", exclusive=True))
    first.take(1, 2)
    first.close()
    second = stage.connect()
    second.ask(1, Basic.Consume(queue=queue, consumer_tag="second", exclusive=True))
    second.take(1, 2)


@scenario
def consumers_take_turns(stage):
    peer = stage.connect(1, 2, 3)
    queue = stage.name("q")
    fill(peer, queue, 0)
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="a"))
    peer.ask(3, Basic.Consume(queue=queue, consumer_tag="b"))
    for number in range(6):
        peer.publish(1, "", queue, f"{number}")
        peer.settle()
    peer.quiet()


@scenario
def prefetch_per_consumer(stage):
    peer = stage.connect(1, 2)
    queue = stage.name("q")
    fill(peer, queue, 8)
    peer.ask(2, Basic.Qos(prefetch_count=2))
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="a"))
    peer.take(2, 2)
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="b"))
    peer.take(2, 2)
    peer.quiet()
    peer.send(2, Basic.Ack(delivery_tag=2))
    peer.take(2, 1)
    peer.quiet()
    # A new prefetch applies to consumers that are started after it.
    peer.ask(2, Basic.Qos(prefetch_count=3))
    peer.quiet()
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="c"))
    peer.take(2, 3)
    peer.quiet()


@scenario
def prefetch_per_channel(stage):
    peer = stage.connect(1, 2)
    queue = stage.name("q")
    fill(peer, queue, 8)
    peer.ask(2, Basic.Qos(prefetch_count=3, global_qos=True))
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="a"))
    peer.take(2, 3)
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="b"))
    peer.quiet()
    peer.send(2, Basic.Ack(delivery_tag=3, multiple=True))
    taken = []
    for _ in range(3):
        taken += peer.take(2, 1)
    peer.quiet()
    stage.note(taken)


@scenario
def prefetch_does_not_hold_back_get_and_no_ack(stage):
    peer = stage.connect(1, 2)
    queue = stage.name("q")
    fill(peer, queue, 6)
    peer.ask(2, Basic.Qos(prefetch_count=1))
    for _ in range(3):
        peer.ask(2, Basic.Get(queue=queue))
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="a", no_ack=True))
    peer.take(2, 3)


@scenario
def prefetch_by_size(stage):
    peer = stage.connect()
    peer.ask(1, Basic.Qos(prefetch_size=1_000))
    peer.wait_for_end()


@scenario
def a_consumer_is_told_when_its_queue_is_deleted(stage):
    peer, other = stage.connect(1, 2), stage.connect()
    queue = stage.name("q")
    fill(peer, queue, 1)
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="c"))
    peer.take(2, 1)
    other.ask(1, Queue.Delete(queue=queue))
    peer.wait(2, Basic.Cancel)
    # What it holds can still be acknowledged, and the channel goes on.
    peer.send(2, Basic.Ack(delivery_tag=1))
    peer.ask(2, Basic.Cancel(consumer_tag="c"))


@scenario
def a_client_without_consumer_cancel_notify_gets_no_cancel(stage):
    peer, other = stage.connect(capabilities={}), stage.connect()
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(1, Basic.Consume(queue=queue, consumer_tag="c"))
    other.ask(1, Queue.Delete(queue=queue))
    peer.quiet()


@scenario
def a_connection_that_deletes_its_consumer_s_queue_gets_a_cancel(stage):
    peer = stage.connect(1, 2)
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="c"))
    # The order of its Cancel and the DeleteOk is not specified; they are on different channels.
    peer.ask(1, Queue.Delete(queue=queue))
    peer.quiet()


@scenario
def cancelling_keeps_what_is_held(stage):
    peer = stage.connect(1, 2)
    queue = stage.name("q")
    fill(peer, queue, 2)
    peer.ask(2, Basic.Qos(prefetch_count=1))
    peer.ask(2, Basic.Consume(queue=queue, consumer_tag="c"))
    peer.take(2, 1)
    peer.ask(2, Basic.Cancel(consumer_tag="c"))
    peer.ask(1, Queue.Declare(queue=queue, passive=True))
    peer.send(2, Basic.Ack(delivery_tag=1))
    peer.ask(2, Queue.Declare(queue=queue, passive=True))
    peer.ask(2, Basic.Get(queue=queue))


@scenario
def a_client_lets_the_flow_go_on(stage):
    stage.connect().ask(1, Channel.Flow(active=True))


@scenario
def a_client_stops_the_flow(stage):
    peer = stage.connect(1, 2)
    fill(peer, stage.name("q"), 2)
    if not isinstance(peer.ask(2, Channel.Flow(active=False)), Channel.FlowOk):
        peer.wait_for_end()
        return
    peer.ask(2, Basic.Consume(queue=stage.name("q"), consumer_tag="c"))
    peer.quiet()
    peer.ask(2, Channel.Flow(active=True))
    peer.take(2, 2)


@scenario
def consumers_of_its_own_messages(stage):
    peer = stage.connect(1, 2)
    queue = stage.name("q")
    fill(peer, queue, 1)
    # `no_local` is accepted and ignored.
    peer.ask(1, Basic.Consume(queue=queue, consumer_tag="c", no_local=True))
    peer.take(1, 1)
