"""Permissions. The user `limited` may use only what begins with its name; `outsider` may not open the virtual host.

RabbitMQ has permissions by name (configure, write, read); our broker asks the program that embeds it. The example `serve` has
the same permissions as RabbitMQ here, so the scenarios compare how a refusal reaches the client.
"""

from pika.spec import Basic, Connection, Exchange, Queue

from stage import scenario

from .handshake import greet

OWN_TOPIC = "limited.topic"


@scenario
def a_user_may_use_their_own(stage):
    peer = stage.connect(user="limited").confirming()
    queue = "limited.allowed"
    peer.ask(1, Queue.Declare(queue=queue))
    peer.ask(1, Exchange.Declare(exchange=OWN_TOPIC, type="topic"))
    peer.ask(1, Queue.Bind(queue=queue, exchange=OWN_TOPIC, routing_key="limited.#"))
    peer.publish(1, OWN_TOPIC, "limited.results", "m")
    peer.settle()
    peer.ask(1, Basic.Get(queue=queue))
    peer.ask(1, Queue.Delete(queue=queue))


@scenario
def a_user_may_not_use_what_is_another_s(stage):
    owner = stage.connect()
    queue, exchange = stage.name("q"), stage.name("x")
    owner.ask(1, Queue.Declare(queue=queue))
    owner.ask(1, Exchange.Declare(exchange=exchange, type="topic"))
    peer = stage.connect(*range(1, 12), user="limited")
    peer.ask(11, Queue.Declare(queue="limited.mine", exclusive=True))
    peer.ask(1, Queue.Declare(queue=stage.name("new")))
    peer.ask(2, Exchange.Declare(exchange=stage.name("new"), type="topic"))
    peer.ask(3, Basic.Consume(queue=queue))
    peer.ask(4, Basic.Get(queue=queue))
    peer.ask(5, Queue.Purge(queue=queue))
    peer.ask(6, Queue.Delete(queue=queue))
    peer.ask(7, Queue.Bind(queue=queue, exchange=exchange, routing_key="k"))
    peer.ask(8, Queue.Bind(queue="limited.mine", exchange=exchange, routing_key="k"))
    peer.ask(9, Exchange.Delete(exchange=exchange))
    peer.publish(10, exchange, "k", "m")
    peer.quiet()


@scenario
def permissions_are_checked_before_existence(stage):
    peer = stage.connect(1, 2, 3, user="limited")
    peer.ask(1, Basic.Consume(queue=stage.name("missing")))
    peer.ask(2, Basic.Get(queue=stage.name("missing")))
    peer.publish(3, stage.name("missing"), "k", "m")
    peer.quiet()


@scenario
def the_routing_key_needs_permission(stage):
    owner = stage.connect()
    owner.ask(1, Exchange.Declare(exchange=OWN_TOPIC, type="topic"))
    peer = stage.connect(1, 2, user="limited").confirming(1)
    peer.publish(1, OWN_TOPIC, "limited.results", "mine")
    peer.settle()
    peer.publish(1, OWN_TOPIC, "another.results", "another's")
    peer.quiet()
    peer.ask(2, Exchange.Declare(exchange=OWN_TOPIC, passive=True))


@scenario
def the_virtual_host_is_refused(stage):
    peer = stage.peer()
    greet(stage, peer)
    peer.start_ok("outsider", "outsider")
    peer.send(0, Connection.TuneOk(2_047, 131_072, 0))
    peer.ask(0, Connection.Open("/"))
    peer.wait_for_end()
