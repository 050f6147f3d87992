"""Acknowledging, rejecting, losing consumers: what is requeued, where, and with which `redelivered`."""

from pika.spec import Basic, Channel, Queue

from stage import scenario

from .delivering import fill


def held(stage, count, prefetch=0):
    """A connection that holds `count` deliveries of queue `q` on channel 2. Channel 1 is open, too."""
    peer = stage.connect(1, 2)
    fill(peer, stage.name("q"), count)
    peer.ask(2, Basic.Qos(prefetch_count=prefetch))
    peer.ask(2, Basic.Consume(queue=stage.name("q"), consumer_tag="c"))
    peer.take(2, prefetch or count)
    return peer


def left(stage):
    """Takes what is left in queue `q` on another connection, which records it."""
    other = stage.connect()
    other.ask(1, Queue.Declare(queue=stage.name("q"), passive=True))
    while isinstance(other.ask(1, Basic.Get(queue=stage.name("q"), no_ack=True)), Basic.GetOk):
        pass
    other.close()


@scenario
def acknowledging_one_several_and_all(stage):
    peer = held(stage, 10)
    peer.send(2, Basic.Ack(delivery_tag=2))
    peer.send(2, Basic.Ack(delivery_tag=5, multiple=True))
    peer.ask(2, Channel.Close(200, "bye", 0, 0))
    left(stage)
    again = stage.connect(1, 2)
    fill(again, stage.name("q"), 3)
    again.ask(2, Basic.Consume(queue=stage.name("q"), consumer_tag="c"))
    again.take(2, 3)
    # Tag 0 with `multiple` means all.
    again.send(2, Basic.Ack(delivery_tag=0, multiple=True))
    again.ask(2, Channel.Close(200, "bye", 0, 0))
    left(stage)


@scenario
def acknowledging_an_unknown_tag(stage):
    peer = held(stage, 1)
    peer.send(2, Basic.Ack(delivery_tag=7))
    peer.quiet()
    left(stage)


@scenario
def acknowledging_twice(stage):
    peer = held(stage, 2)
    peer.send(2, Basic.Ack(delivery_tag=1))
    peer.send(2, Basic.Ack(delivery_tag=1))
    peer.quiet()
    left(stage)


@scenario
def acknowledging_an_unknown_tag_with_multiple(stage):
    peer = held(stage, 2)
    peer.send(2, Basic.Ack(delivery_tag=9, multiple=True))
    peer.quiet()
    left(stage)


@scenario
def acknowledging_several_with_none_outstanding(stage):
    peer = stage.connect(1, 2)
    peer.send(1, Basic.Ack(delivery_tag=0, multiple=True))
    peer.quiet()
    peer.send(2, Basic.Ack(delivery_tag=0))
    peer.quiet()


@scenario
def acknowledging_on_the_wrong_channel(stage):
    peer = held(stage, 1)
    peer.send(1, Basic.Ack(delivery_tag=1))
    peer.quiet()
    peer.send(2, Basic.Ack(delivery_tag=1))
    peer.quiet()
    left(stage)


@scenario
def rejecting_an_unknown_tag(stage):
    peer = held(stage, 1)
    peer.send(2, Basic.Reject(delivery_tag=7, requeue=True))
    peer.quiet()
    other = held(stage, 0, 1)
    other.send(2, Basic.Nack(delivery_tag=7, requeue=True))
    other.quiet()


@scenario
def acknowledging_a_delivery_without_acknowledgement(stage):
    peer = stage.connect(1, 2)
    fill(peer, stage.name("q"), 1)
    peer.ask(2, Basic.Consume(queue=stage.name("q"), consumer_tag="c", no_ack=True))
    peer.take(2, 1)
    peer.send(2, Basic.Ack(delivery_tag=1))
    peer.quiet()


@scenario
def a_rejected_message_goes_back_to_its_place(stage):
    peer = stage.connect(1, 2)
    fill(peer, stage.name("q"), 5)
    for _ in range(3):
        peer.ask(2, Basic.Get(queue=stage.name("q")))
    peer.send(2, Basic.Reject(delivery_tag=2, requeue=True))
    peer.send(2, Basic.Reject(delivery_tag=3, requeue=True))
    peer.send(2, Basic.Reject(delivery_tag=1, requeue=False))
    peer.quiet()
    left(stage)


@scenario
def a_consumer_gets_back_what_it_rejects(stage):
    peer = held(stage, 3, prefetch=1)
    peer.send(2, Basic.Reject(delivery_tag=1, requeue=True))
    peer.take(2, 1)
    peer.send(2, Basic.Nack(delivery_tag=2, requeue=False))
    peer.take(2, 1)
    peer.send(2, Basic.Ack(delivery_tag=3))
    peer.take(2, 1)
    peer.quiet()


@scenario
def nacking_several_puts_them_back_in_order(stage):
    peer = held(stage, 6)
    peer.send(2, Basic.Ack(delivery_tag=2))
    peer.ask(2, Basic.Cancel(consumer_tag="c"))
    peer.send(2, Basic.Nack(delivery_tag=4, multiple=True, requeue=True))
    peer.quiet()
    left(stage)
    peer.send(2, Basic.Nack(delivery_tag=0, multiple=True, requeue=False))
    peer.quiet()
    left(stage)


@scenario
def recovering_with_requeue(stage):
    peer = stage.connect(1, 2)
    fill(peer, stage.name("q"), 4)
    for _ in range(3):
        peer.ask(2, Basic.Get(queue=stage.name("q")))
    peer.send(2, Basic.Ack(delivery_tag=2))
    peer.ask(2, Basic.Recover(requeue=True))
    left(stage)


@scenario
def recovering_to_the_same_consumer(stage):
    peer = held(stage, 2)
    peer.ask(2, Basic.Recover(requeue=True))
    peer.take(2, 2)
    peer.quiet()


@scenario
def recovering_without_requeue(stage):
    peer = held(stage, 1)
    peer.ask(2, Basic.Recover(requeue=False))
    peer.quiet()


@scenario
def recovering_asynchronously(stage):
    peer = stage.connect(1, 2)
    fill(peer, stage.name("q"), 1)
    peer.ask(2, Basic.Get(queue=stage.name("q")))
    peer.send(2, Basic.RecoverAsync(requeue=True))
    peer.quiet()
    left(stage)


@scenario
def a_closed_channel_gives_everything_back(stage):
    peer = held(stage, 5, prefetch=3)
    peer.send(2, Basic.Ack(delivery_tag=2))
    peer.take(2, 1)
    peer.ask(2, Channel.Close(200, "bye", 0, 0))
    left(stage)


@scenario
def a_channel_closed_for_an_error_gives_everything_back(stage):
    peer = held(stage, 3)
    peer.ask(2, Queue.Declare(queue=stage.name("missing"), passive=True))
    left(stage)


@scenario
def a_closed_connection_gives_everything_back(stage):
    peer = held(stage, 4, prefetch=2)
    peer.close()
    left(stage)


@scenario
def a_lost_connection_s_deliveries_go_to_the_next_consumer(stage):
    peer = held(stage, 4, prefetch=2)
    heir = stage.connect()
    heir.ask(1, Basic.Qos(prefetch_count=10))
    heir.ask(1, Basic.Consume(queue=stage.name("q"), consumer_tag="heir"))
    heir.take(1, 2)
    peer.drop()
    heir.take(1, 2)
    heir.quiet()


@scenario
def deliveries_of_a_closed_channel_can_t_be_acknowledged(stage):
    peer = held(stage, 1)
    peer.ask(2, Channel.Close(200, "bye", 0, 0))
    peer.channel(2)
    peer.send(2, Basic.Ack(delivery_tag=1))
    peer.quiet()
    left(stage)


@scenario
def tags_begin_anew_with_the_channel(stage):
    peer = held(stage, 2)
    peer.ask(2, Channel.Close(200, "bye", 0, 0))
    peer.channel(2)
    peer.ask(2, Basic.Consume(queue=stage.name("q"), consumer_tag="c"))
    peer.take(2, 2)


@scenario
def a_message_that_is_always_requeued(stage):
    """RabbitMQ's classic queues have no limit for it."""
    peer = held(stage, 1)
    peer.silent = True
    for tag in range(1, 31):
        peer.send(2, Basic.Nack(delivery_tag=tag, requeue=True))
        if peer.read(1) is None:
            stage.note(f"dropped after {tag} deliveries")
            break
    else:
        stage.note("still delivered")
