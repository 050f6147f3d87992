"""Uses a broker through pika's BlockingConnection. test_clients.py says what each of these programs does."""

import sys
import time

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker, UnroutableError

PARAMETERS = pika.ConnectionParameters("127.0.0.1", int(sys.argv[1]), heartbeat=10)
QUEUE, EXCHANGE = "pika-blocking", "pika-blocking.x"


def say(*words):
    print("-", *words, flush=True)


def prepare(connection):
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, "topic")
    say("declared", channel.queue_declare(QUEUE).method.message_count)
    channel.queue_bind(QUEUE, EXCHANGE, "to.#")
    channel.confirm_delivery()
    return channel


def publish(channel, count):
    for number in range(count):
        properties = pika.BasicProperties(headers={"number": number}, content_type="text/plain")
        channel.basic_publish(EXCHANGE, f"to.{number}", f"{number}", properties, mandatory=True)
    say("confirmed", count)


def consume(connection, count):
    """Takes `count` messages, and rejects the first one once."""
    channel = connection.channel()
    channel.basic_qos(prefetch_count=3)
    seen, refused = [], False
    for method, properties, body in channel.consume(QUEUE, inactivity_timeout=10):
        if method is None:
            say("nothing comes any more")
            break
        seen.append((body.decode(), properties.headers["number"], method.redelivered))
        if not refused:
            refused = True
            channel.basic_reject(method.delivery_tag, requeue=True)
            continue
        channel.basic_ack(method.delivery_tag)
        if len(seen) == count + 1:
            break
    say("given back", channel.cancel())
    say("consumed", sorted(seen))


def converse(connection):
    channel = prepare(connection)
    publish(channel, 10)
    consume(connection, 10)
    try:
        channel.basic_publish(EXCHANGE, "nobody", "m", mandatory=True)
    except UnroutableError as error:
        say("returned", [message.method.reply_code for message in error.messages])
    try:
        connection.channel().queue_declare("pika-blocking.missing", passive=True)
    except ChannelClosedByBroker as error:
        say("closed", error.reply_code)
    say("left", channel.queue_declare(QUEUE, passive=True).method.message_count)


connection = pika.BlockingConnection(PARAMETERS)
converse(connection)
say("waiting for the end of the broker")
try:
    while True:
        connection.process_data_events(1)
except AMQPError:
    say("lost")
for _ in range(300):
    try:
        connection = pika.BlockingConnection(PARAMETERS)
        break
    except AMQPError:
        time.sleep(0.1)
converse(connection)
connection.close()
say("done")
