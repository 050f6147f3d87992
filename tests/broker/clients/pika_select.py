"""Uses a broker through pika's SelectConnection, used as the packages from PyPI use it.

One channel declares everything. Then come a publisher like the endpoint's (passive declares, confirms selected without
waiting, mandatory messages) and a consumer like the SDK's (no declares, some acknowledgements of several messages).
test_clients.py says what each of these programs does.
"""

import sys

import pika
from pika.exceptions import ChannelClosedByBroker

PARAMETERS = pika.ConnectionParameters("127.0.0.1", int(sys.argv[1]), heartbeat=10)
QUEUE, EXCHANGE, KEY, COUNT = "pika-select", "pika-select.x", "someone.results", 10


def say(*words):
    print("-", *words, flush=True)


class Conversation:
    def __init__(self):
        self.round = 0
        self.leaving = False
        self.connect()

    def connect(self, loop=None):
        self.connection = pika.SelectConnection(
            PARAMETERS,
            on_open_callback=self.opened,
            on_open_error_callback=self.not_opened,
            on_close_callback=self.closed,
            custom_ioloop=loop,
        )

    def not_opened(self, connection, error):
        # The broker is starting again.
        connection.ioloop.call_later(0.1, self.again)

    def again(self):
        self.connect(self.connection.ioloop)

    def closed(self, connection, reason):
        if self.leaving:
            say("done")
            connection.ioloop.stop()
            return
        say("lost")
        connection.ioloop.call_later(0.1, self.again)

    def opened(self, connection):
        self.round += 1
        self.acknowledged, self.seen, self.returned, self.refused = set(), [], [], False
        connection.channel(on_open_callback=self.owner_opened)

    # The owner of the queues.

    def owner_opened(self, channel):
        self.owner = channel
        channel.exchange_declare(EXCHANGE, "topic", callback=self.exchange_declared)

    def exchange_declared(self, _):
        self.owner.queue_declare(QUEUE, callback=self.queue_declared)

    def queue_declared(self, frame):
        say("declared", frame.method.message_count)
        self.owner.queue_bind(QUEUE, EXCHANGE, "*.results", callback=self.bound)

    def bound(self, _):
        self.connection.channel(on_open_callback=self.publisher_opened)

    # The publisher.

    def publisher_opened(self, channel):
        self.publisher = channel
        # The type does not matter to a passive declare.
        channel.exchange_declare(EXCHANGE, passive=True, callback=self.exchange_seen)

    def exchange_seen(self, _):
        self.publisher.queue_declare(QUEUE, passive=True, callback=self.queue_seen)

    def queue_seen(self, _):
        self.publisher.add_on_return_callback(lambda channel, method, properties, body: self.returned.append(method.reply_code))
        # Without a callback for it, confirms are selected without waiting.
        self.publisher.confirm_delivery(self.confirmed)
        for number in range(COUNT):
            properties = pika.BasicProperties(headers={"number": number})
            self.publisher.basic_publish(EXCHANGE, KEY, f"{number}", properties, mandatory=True)
        self.publisher.basic_publish(EXCHANGE, "nobody", "m", mandatory=True)

    def confirmed(self, frame):
        assert frame.method.NAME == "Basic.Ack", frame
        tag = frame.method.delivery_tag
        self.acknowledged.update(range(1, tag + 1) if frame.method.multiple else [tag])
        if len(self.acknowledged) == COUNT + 1:
            say("confirmed", len(self.acknowledged))
            say("returned", self.returned)
            self.connection.channel(on_open_callback=self.consumer_opened)

    # The consumer.

    def consumer_opened(self, channel):
        self.consumer = channel
        channel.basic_qos(prefetch_count=4, callback=self.qos_set)

    def qos_set(self, _):
        self.consumer.basic_consume(QUEUE, self.message)

    def message(self, channel, method, properties, body):
        self.seen.append((body.decode(), properties.headers["number"], method.redelivered))
        if not self.refused:
            self.refused = True
            channel.basic_nack(method.delivery_tag, requeue=True)
        elif len(self.seen) % 3 == 0 or len(self.seen) == COUNT + 1:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if len(self.seen) == COUNT + 1:
            say("consumed", sorted(self.seen))
            channel.basic_cancel(channel.consumer_tags[0], callback=self.cancelled)

    def cancelled(self, _):
        self.connection.channel(on_open_callback=self.other_opened)

    def other_opened(self, channel):
        channel.add_on_close_callback(self.other_closed)
        channel.queue_declare("pika-select.missing", passive=True, callback=lambda _: say("it is there?"))

    def other_closed(self, _, reason):
        assert isinstance(reason, ChannelClosedByBroker), reason
        say("closed", reason.reply_code)
        self.owner.queue_declare(QUEUE, passive=True, callback=self.counted)

    def counted(self, frame):
        say("left", frame.method.message_count)
        if self.round == 1:
            say("waiting for the end of the broker")
        else:
            self.leaving = True
            self.connection.close()


conversation = Conversation()
conversation.connection.ioloop.start()
