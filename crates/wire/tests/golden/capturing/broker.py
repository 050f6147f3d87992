"""Just enough of an AMQP broker to hear what an endpoint publishes and to hand it a message. It routes nothing."""

import socket
import threading
import time
from collections import defaultdict

from pika import frame, spec

EVERYTHING_EXISTS = {
    spec.Connection.Open: lambda method: spec.Connection.OpenOk(),
    spec.Channel.Open: lambda method: spec.Channel.OpenOk(),
    spec.Exchange.Declare: lambda method: spec.Exchange.DeclareOk(),
    spec.Queue.Declare: lambda method: spec.Queue.DeclareOk(method.queue, 0, 0),
    spec.Basic.Qos: lambda method: spec.Basic.QosOk(),
    spec.Basic.Cancel: lambda method: None if method.nowait else spec.Basic.CancelOk(method.consumer_tag),
    spec.Channel.Close: lambda method: spec.Channel.CloseOk(),
    spec.Connection.Close: lambda method: spec.Connection.CloseOk(),
}


class Broker:
    def __init__(self):
        self.published = []
        self.changed = threading.Condition()
        self.consumers = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"amqp://someone:secret@127.0.0.1:{self.listener.getsockname()[1]}/%2F"
        threading.Thread(target=self._accept, daemon=True).start()

    def heard(self, wanted, seconds=60):
        """Waits for a publication `(exchange, routing_key, properties, body)` that `wanted` says yes to."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while True:
                for publication in self.published:
                    if wanted(*publication):
                        return publication
                if not self.changed.wait(deadline - time.monotonic()):
                    raise SystemExit(f"not heard; there was {self.published}")

    def hand(self, queue, properties, body, seconds=60):
        """Delivers a message to the consumer of `queue`, once there is one."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while queue not in self.consumers:
                if not self.changed.wait(deadline - time.monotonic()):
                    raise SystemExit(f"nobody consumes {queue}")
            deliver = self.consumers[queue]
        deliver(properties, body)

    def _accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        lock = threading.Lock()
        confirms = defaultdict(int)
        pending = {}

        def send(*frames):
            with lock:
                connection.sendall(b"".join(each.marshal() for each in frames))

        def deliver_to(channel, tag):
            def deliver(properties, body):
                send(
                    frame.Method(channel, spec.Basic.Deliver(tag, 1, False, "", "")),
                    frame.Header(channel, len(body), properties),
                    frame.Body(channel, body),
                )

            return deliver

        received = b""
        try:
            while len(received) < 8:
                received += connection.recv(65536)
            received = received[8:]
            abilities = {"capabilities": {"publisher_confirms": True, "basic.nack": True}}
            send(frame.Method(0, spec.Connection.Start(server_properties=abilities, mechanisms="PLAIN")))
            while True:
                used, value = frame.decode_frame(received)
                if value is None:
                    chunk = connection.recv(65536)
                    if not chunk:
                        return
                    received += chunk
                    continue
                received = received[used:]
                channel = value.channel_number
                if isinstance(value, frame.Header):
                    pending[channel][1:] = [value.properties, value.body_size, b""]
                elif isinstance(value, frame.Body):
                    pending[channel][3] += value.fragment
                elif isinstance(value, frame.Method):
                    method = value.method
                    if isinstance(method, spec.Connection.StartOk):
                        send(frame.Method(0, spec.Connection.Tune(2047, 131072, 0)))
                    elif isinstance(method, spec.Confirm.Select):
                        confirms[channel] = 1
                        if not method.nowait:
                            send(frame.Method(channel, spec.Confirm.SelectOk()))
                    elif isinstance(method, spec.Basic.Consume):
                        send(frame.Method(channel, spec.Basic.ConsumeOk(method.consumer_tag)))
                        with self.changed:
                            self.consumers[method.queue] = deliver_to(channel, method.consumer_tag)
                            self.changed.notify_all()
                    elif isinstance(method, spec.Basic.Publish):
                        pending[channel] = [method]
                    else:
                        answer = EVERYTHING_EXISTS.get(type(method), lambda method: None)(method)
                        if answer is not None:
                            send(frame.Method(channel, answer))
                message = pending.get(channel)
                if message and len(message) == 4 and len(message[3]) >= message[2]:
                    del pending[channel]
                    if confirms[channel]:
                        send(frame.Method(channel, spec.Basic.Ack(confirms[channel], False)))
                        confirms[channel] += 1
                    with self.changed:
                        publish = message[0]
                        self.published.append((publish.exchange, publish.routing_key, message[1], message[3]))
                        self.changed.notify_all()
        except OSError:
            return

    def registration(self, endpoint):
        """What a service would answer to the registration of `endpoint`."""

        def publish(name, **properties):
            arguments = {"exchange": name, "routing_key": f"{endpoint}.{name}", "mandatory": True, **properties}
            return {
                "connection_url": self.url,
                "queue": name,
                "exchange": name,
                "queue_publish_kwargs": arguments,
            }

        return {
            "endpoint_id": endpoint,
            "task_queue_info": {"connection_url": self.url, "queue": f"{endpoint}.tasks", "exchange": "tasks"},
            "result_queue_info": publish("results", properties={"delivery_mode": 2}),
            "heartbeat_queue_info": publish("heartbeats"),
            "command_queue_info": {
                "connection_url": self.url,
                "queue": f"{endpoint}.commands",
                "exchange": "commands",
            },
        }
