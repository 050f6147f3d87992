"""Confirms and returned messages."""

from pika.spec import Basic, BasicProperties, Confirm, Exchange, Queue, Tx

from peer import ENDED
from stage import KEPT, scenario

PERSISTENT = BasicProperties(delivery_mode=2)


@scenario
def confirms_come_for_every_message(stage):
    peer = stage.connect()
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    peer.publish(1, "", queue, "before confirm mode")
    peer.confirming()
    for number in range(200):
        peer.publish(1, "", queue if number % 3 else stage.name("nobody"), f"{number}")
    peer.settle()
    peer.ask(1, Queue.Declare(queue=queue, passive=True))


@scenario
def confirm_mode_is_entered_twice_and_without_waiting(stage):
    peer = stage.connect(1, 2)
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    peer.send(1, Confirm.Select(nowait=True))
    peer.count_confirms(1)
    peer.publish(1, "", queue, "m")
    peer.settle()
    peer.ask(1, Confirm.Select())
    peer.publish(1, "", queue, "m")
    peer.settle()
    # Each channel has its own numbers.
    peer.confirming(2).publish(2, "", queue, "m")
    peer.settle(2)


@scenario
def an_unroutable_mandatory_message_is_returned_before_its_confirm(stage):
    peer = stage.connect().confirming()
    properties = BasicProperties(content_type="text/plain", headers={"a": 1}, message_id="7")
    peer.publish(1, "", stage.name("nobody"), "returned", properties, mandatory=True)
    while not peer.confirms[1]:
        assert peer.read() not in (None, ENDED), "no confirm"
    stage.note(f"returned before its confirm: {peer.returned}")
    peer.settle()
    peer.publish(1, "amq.direct", "nothing bound", b"", mandatory=True)
    peer.publish(1, "amq.fanout", "", b"x" * 300_000, mandatory=True)
    peer.publish(1, "amq.topic", "dropped", "silently")
    peer.settle()
    stage.note(f"returned: {peer.returned}")


@scenario
def a_mandatory_message_is_returned_without_confirm_mode(stage):
    peer = stage.connect()
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    peer.publish(1, "", queue, "arrives", mandatory=True)
    peer.publish(1, "", stage.name("nobody"), "returned", mandatory=True)
    peer.wait(1, Basic.Return)
    peer.ask(1, Basic.Get(queue=queue, no_ack=True))


@scenario
def a_message_for_several_queues_is_confirmed_once(stage):
    peer = stage.connect().confirming()
    exchange = stage.name("x")
    peer.ask(1, Exchange.Declare(exchange=exchange, type="fanout"))
    for short in "abc":
        peer.ask(1, Queue.Declare(queue=stage.name(short)))
        peer.ask(1, Queue.Bind(queue=stage.name(short), exchange=exchange))
    peer.publish(1, exchange, "", "m")
    peer.settle()
    for short in "abc":
        peer.ask(1, Queue.Declare(queue=stage.name(short), passive=True))


@scenario
def transient_messages_into_a_durable_queue_are_confirmed(stage):
    peer = stage.connect().confirming()
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue, durable=True))
    peer.publish(1, "", queue, "m")
    peer.publish(1, "", queue, "m", BasicProperties(delivery_mode=1))
    peer.settle()


@scenario
def persistent_messages_into_a_transient_queue_are_confirmed(stage):
    peer = stage.connect().confirming()
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue))
    peer.publish(1, "", queue, "m", PERSISTENT)
    peer.settle()
    peer.ask(1, Basic.Get(queue=queue, no_ack=True))


@scenario
def persistent_messages_into_a_durable_queue_without_a_sink(stage):
    peer = stage.connect().confirming()
    queue = stage.name("q")
    peer.ask(1, Queue.Declare(queue=queue, durable=True))
    peer.publish(1, "", queue, "m", PERSISTENT)
    peer.settle()
    peer.ask(1, Queue.Declare(queue=queue, passive=True))


@scenario
def persistent_messages_into_a_kept_queue_are_confirmed_and_delivered(stage):
    peer = stage.connect(1, 2).confirming()
    peer.ask(1, Queue.Declare(queue=KEPT[0], passive=True))
    for number in range(50):
        peer.publish(1, "", KEPT[0], f"{number}", PERSISTENT)
    peer.settle()
    peer.ask(2, Basic.Qos(prefetch_count=10))
    peer.ask(2, Basic.Consume(queue=KEPT[0], consumer_tag="c"))
    for delivered in range(1, 51):
        peer.take(2, 1)
        if delivered % 10 == 0:
            peer.send(2, Basic.Ack(delivery_tag=delivered, multiple=True))
    peer.quiet()
    peer.ask(2, Basic.Cancel(consumer_tag="c"))


@scenario
def a_kept_queue_delivers_again_what_a_lost_consumer_held(stage):
    publisher = stage.connect().confirming()
    for number in range(5):
        publisher.publish(1, "", KEPT[1], f"{number}", PERSISTENT)
    publisher.settle()
    lost = stage.connect()
    lost.ask(1, Basic.Qos(prefetch_count=3))
    lost.ask(1, Basic.Consume(queue=KEPT[1], consumer_tag="c", exclusive=True))
    lost.take(1, 3)
    lost.send(1, Basic.Ack(delivery_tag=1))
    lost.take(1, 1)
    lost.close()
    heir = stage.connect()
    heir.ask(1, Basic.Consume(queue=KEPT[1], consumer_tag="d"))
    heir.take(1, 4)
    heir.send(1, Basic.Ack(delivery_tag=0, multiple=True))
    heir.quiet()
    heir.close()


@scenario
def transactions(stage):
    peer = stage.connect()
    if not isinstance(peer.ask(1, Tx.Select()), Tx.SelectOk):
        peer.wait_for_end()


@scenario
def the_immediate_flag(stage):
    peer = stage.connect()
    peer.publish(1, "", stage.name("q"), "m", immediate=True)
    peer.wait_for_end()
