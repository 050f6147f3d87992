"""Uses a broker through kombu and py-amqp. test_clients.py says what each of these programs does."""

import socket
import sys

from amqp.exceptions import NotFound
from kombu import Connection, Exchange, Producer, Queue

EXCHANGE = Exchange("kombu.x", type="topic", durable=False, auto_delete=False, delivery_mode="transient")
QUEUE = Queue("kombu", EXCHANGE, routing_key="to.#", durable=False, auto_delete=False)


def say(*words):
    print("-", *words, flush=True)


def publish(connection, count):
    returned = []
    channel = connection.channel()
    producer = Producer(channel, EXCHANGE, serializer="json", on_return=lambda *it: returned.append(it[0].reply_code))
    producer.declare()
    for number in range(count):
        producer.publish({"number": number}, routing_key=f"to.{number}", headers={"number": number}, mandatory=True)
    say("confirmed", count)
    producer.publish("m", routing_key="nobody", mandatory=True)
    say("returned", [code for code in returned])


def consume(connection, count):
    channel = connection.channel()
    seen, refused = [], []

    def take(body, message):
        seen.append((body["number"], message.headers["number"], message.delivery_info["redelivered"]))
        if not refused:
            refused.append(message)
            message.requeue()
        else:
            message.ack()

    with connection.Consumer([QUEUE], callbacks=[take], channel=channel, prefetch_count=3):
        while len(seen) <= count:
            connection.drain_events(timeout=10)
    say("consumed", sorted(seen))


def converse(connection):
    bound = QUEUE(connection.channel())
    bound.declare()
    publish(connection, 10)
    consume(connection, 10)
    try:
        connection.channel().queue_declare("kombu.missing", passive=True)
    except NotFound as error:
        say("closed", error.reply_code)
    say("left", bound.queue_declare(passive=True).message_count)


url = f"pyamqp://guest:guest@127.0.0.1:{sys.argv[1]}//"
connection = Connection(url, heartbeat=10, transport_options={"confirm_publish": True})
converse(connection)
say("waiting for the end of the broker")
try:
    while True:
        try:
            connection.drain_events(timeout=1)
        except socket.timeout:
            connection.heartbeat_check()
except connection.connection_errors:
    say("lost")
connection.ensure_connection(interval_start=0.1, interval_step=0, max_retries=300)
converse(connection)
connection.release()
say("done")
