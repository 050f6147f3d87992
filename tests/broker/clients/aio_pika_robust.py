"""Uses a broker through aio-pika's robust connection, which reconnects and redeclares by itself.

test_clients.py says what each of these programs does.
"""

import asyncio
import sys

import aio_pika
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError

URL = f"amqp://guest:guest@127.0.0.1:{sys.argv[1]}/?heartbeat=10"


def say(*words):
    print("-", *words, flush=True)


async def converse(connection):
    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
    await channel.set_qos(prefetch_count=3)
    exchange = await channel.declare_exchange("aio-pika.x", aio_pika.ExchangeType.TOPIC)
    queue = await channel.declare_queue("aio-pika")
    await queue.bind(exchange, "to.#")
    for number in range(10):
        message = aio_pika.Message(f"{number}".encode(), headers={"number": number})
        await exchange.publish(message, f"to.{number}")
    say("confirmed", 10)
    try:
        await exchange.publish(aio_pika.Message(b"m"), "nobody")
    except DeliveryError as error:
        say("returned", error.message.delivery.reply_code)
    seen = []
    async with queue.iterator() as messages:
        async for message in messages:
            seen.append((message.body.decode(), message.headers["number"], message.redelivered))
            if len(seen) == 1:
                await message.reject(requeue=True)
                continue
            await message.ack()
            if len(seen) == 11:
                break
    say("consumed", sorted(seen))
    try:
        other = await connection.channel()
        await other.declare_queue("aio-pika.missing", passive=True)
    except ChannelNotFoundEntity:
        say("closed", 404)
    say("left", (await channel.declare_queue("aio-pika", passive=True)).declaration_result.message_count)
    await channel.close()


async def main():
    connection = await aio_pika.connect_robust(URL, reconnect_interval=0.1)
    lost, back = asyncio.Event(), asyncio.Event()
    connection.close_callbacks.add(lambda *_: lost.set())
    connection.reconnect_callbacks.add(lambda *_: back.set())
    await converse(connection)
    say("waiting for the end of the broker")
    await asyncio.wait_for(lost.wait(), 60)
    say("lost")
    await asyncio.wait_for(back.wait(), 60)
    await converse(connection)
    await connection.close()
    say("done")


asyncio.run(main())
