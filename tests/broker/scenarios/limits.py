"""Limits: times to live of messages and queues, and length limits.

Times are short. Only `later` sleeps, for several times a time to live.
"""

import time

from pika.spec import Basic, BasicProperties, Queue

from stage import scenario

from .declaring import gone


def later(milliseconds):
    time.sleep(milliseconds / 1_000)


def bodies(stage, peer, queue):
    """Takes everything that is left in a queue; each message is recorded."""
    while isinstance(peer.ask(1, Basic.Get(queue=stage.name(queue), no_ack=True)), Basic.GetOk):
        pass


def declared(stage, arguments, short="q"):
    peer = stage.connect().confirming()
    peer.ask(1, Queue.Declare(queue=stage.name(short), arguments=arguments))
    return peer


@scenario
def a_queue_s_time_to_live(stage):
    peer = declared(stage, {"x-message-ttl": 100})
    for number in range(3):
        peer.publish(1, "", stage.name("q"), f"{number}")
    peer.settle()
    later(400)
    peer.publish(1, "", stage.name("q"), "fresh")
    peer.settle()
    bodies(stage, peer, "q")


@scenario
def a_message_s_time_to_live(stage):
    peer = declared(stage, {})
    for expiration in ("100", "60000", None):
        peer.publish(1, "", stage.name("q"), f"{expiration}", BasicProperties(expiration=expiration))
    peer.settle()
    later(400)
    bodies(stage, peer, "q")


@scenario
def the_shorter_time_to_live_counts(stage):
    peer = declared(stage, {"x-message-ttl": 100})
    peer.publish(1, "", stage.name("q"), "long itself", BasicProperties(expiration="60000"))
    peer.settle()
    later(400)
    bodies(stage, peer, "q")
    other = declared(stage, {"x-message-ttl": 60_000}, "r")
    other.publish(1, "", stage.name("r"), "short itself", BasicProperties(expiration="100"))
    other.settle()
    later(400)
    bodies(stage, other, "r")


@scenario
def a_time_to_live_of_zero(stage):
    """With and without a consumer that waits."""
    peer = declared(stage, {"x-message-ttl": 0})
    peer.publish(1, "", stage.name("q"), "nobody waits")
    peer.settle()
    later(100)
    peer.ask(1, Basic.Get(queue=stage.name("q")))
    peer.channel(2)
    peer.ask(2, Basic.Consume(queue=stage.name("q"), consumer_tag="c"))
    peer.publish(1, "", stage.name("q"), "somebody waits")
    peer.publish(1, "", stage.name("q"), "by itself", BasicProperties(expiration="0"))
    peer.settle()
    peer.take(2, 2)
    peer.quiet()


@scenario
def expired_messages_are_not_counted(stage):
    peer = declared(stage, {"x-message-ttl": 100})
    for number in range(3):
        peer.publish(1, "", stage.name("q"), f"{number}")
    peer.settle()
    later(600)
    peer.ask(1, Queue.Declare(queue=stage.name("q"), passive=True))


@scenario
def a_delivered_message_does_not_expire(stage):
    peer = declared(stage, {"x-message-ttl": 150})
    peer.publish(1, "", stage.name("q"), "held")
    peer.settle()
    peer.ask(1, Basic.Get(queue=stage.name("q")))
    later(500)
    peer.send(1, Basic.Ack(delivery_tag=1))
    peer.publish(1, "", stage.name("q"), "given back")
    peer.settle()
    peer.ask(1, Basic.Get(queue=stage.name("q")))
    later(500)
    # Its time to live went on while it was unacknowledged.
    peer.send(1, Basic.Nack(delivery_tag=2, requeue=True))
    later(300)
    peer.ask(1, Basic.Get(queue=stage.name("q")))


@scenario
def invalid_expirations(stage):
    bad = ["soon", "-1", "", "1.5", "99999999999999999999"]
    peer = stage.connect(*range(1, len(bad) + 1))
    peer.ask(1, Queue.Declare(queue=stage.name("q")))
    for channel, expiration in enumerate(bad, 1):
        peer.publish(channel, "", stage.name("q"), "m", BasicProperties(expiration=expiration))
        peer.quiet()


@scenario
def a_queue_expires_when_unused(stage):
    peer = declared(stage, {"x-expires": 300})
    peer.publish(1, "", stage.name("q"), "m")
    peer.settle()
    later(900)
    stage.note(gone(stage, stage.name("q")))


@scenario
def a_queue_with_a_consumer_does_not_expire(stage):
    peer = declared(stage, {"x-expires": 200})
    peer.ask(1, Basic.Consume(queue=stage.name("q"), consumer_tag="c"))
    later(600)
    peer.ask(1, Queue.Declare(queue=stage.name("q"), passive=True))
    peer.ask(1, Basic.Cancel(consumer_tag="c"))
    later(600)
    stage.note(gone(stage, stage.name("q")))


@scenario
def a_full_queue_drops_its_head(stage):
    peer = declared(stage, {"x-max-length": 3})
    for number in range(6):
        peer.publish(1, "", stage.name("q"), f"{number}")
    peer.settle()
    bodies(stage, peer, "q")


@scenario
def a_full_queue_by_bytes_drops_its_head(stage):
    peer = declared(stage, {"x-max-length-bytes": 100})
    for letter in "abcd":
        peer.publish(1, "", stage.name("q"), letter * 40)
    peer.settle()
    peer.publish(1, "", stage.name("q"), "e" * 101)
    peer.settle()
    bodies(stage, peer, "q")


@scenario
def a_full_queue_refuses(stage):
    peer = declared(stage, {"x-max-length": 2, "x-overflow": "reject-publish"})
    for number in range(4):
        peer.publish(1, "", stage.name("q"), f"{number}")
        peer.settle()
    bodies(stage, peer, "q")
    peer.publish(1, "", stage.name("q"), "room again")
    peer.settle()


@scenario
def messages_being_delivered_do_not_fill_a_queue(stage):
    peer = declared(stage, {"x-max-length": 2})
    for number in range(2):
        peer.publish(1, "", stage.name("q"), f"{number}")
    peer.settle()
    peer.ask(1, Basic.Get(queue=stage.name("q")))
    peer.ask(1, Basic.Get(queue=stage.name("q")))
    for number in range(2, 4):
        peer.publish(1, "", stage.name("q"), f"{number}")
    peer.settle()
    peer.ask(1, Queue.Declare(queue=stage.name("q"), passive=True))
    # The requeued messages go to the head of the queue, where RabbitMQ's full queue drops.
    peer.send(1, Basic.Nack(delivery_tag=2, multiple=True, requeue=True))
    peer.quiet()
    bodies(stage, peer, "q")


@scenario
def a_queue_of_no_length(stage):
    peer = declared(stage, {"x-max-length": 0})
    peer.publish(1, "", stage.name("q"), "nobody waits")
    peer.settle()
    peer.ask(1, Basic.Get(queue=stage.name("q")))


@scenario
def dead_letters(stage):
    peer = stage.connect().confirming()
    peer.ask(1, Queue.Declare(queue=stage.name("dead")))
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": stage.name("dead")}
    if not isinstance(peer.ask(1, Queue.Declare(queue=stage.name("q"), arguments=arguments)), Queue.DeclareOk):
        peer.wait_for_end()
        return
    peer.publish(1, "", stage.name("q"), "m")
    peer.settle()
    peer.ask(1, Basic.Get(queue=stage.name("q")))
    peer.send(1, Basic.Reject(delivery_tag=1, requeue=False))
    peer.quiet()
    stage.note(peer.ask(1, Queue.Declare(queue=stage.name("dead"), passive=True)).message_count)
