"""Clients that none of us wrote, each in a conversation of its own with RabbitMQ and with ours. lapin's is an example
program of the crate `broker`.

Every conversation declares and binds, publishes with confirms, has an unroutable message returned, consumes with a
prefetch and refuses a message once, runs into a missing queue, then loses its broker to a kill, comes back to the one
that takes its place, and does it all again. What it says on the way must be the same with both brokers.
"""

import os
from pathlib import Path

import environments
import pytest
from processes import Process
from testbed import binary

CLIENTS = Path(__file__).resolve().parent / "clients"
LOSS = "waiting for the end of the broker"


def python(script):
    return lambda: [environments.make("amqp-clients"), CLIENTS / script]


def node():
    """Node with amqplib, installed once per lock file into the user's cache."""
    source = CLIENTS / "node"
    return ["env", f"NODE_PATH={environments.node_modules(source)}", "node", source / "conversation.js"]


CONVERSATIONS = {
    "pika-blocking": python("pika_blocking.py"),
    "pika-select": python("pika_select.py"),
    "kombu-pyamqp": python("kombu_pyamqp.py"),
    "aio-pika": python("aio_pika_robust.py"),
    "amqplib": node,
    "lapin": lambda: [binary("examples/conversation")],
}


def converse(broker, directory):
    """All clients at once, and one kill for all of them; returns what each has said."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "LANG": "C.UTF-8"}
    running = {
        name: Process(f"{name}-{broker.name}", [*map(str, command()), str(broker.port)], environment, directory)
        for name, command in CONVERSATIONS.items()
    }
    try:
        for process in running.values():
            process.wait_for(f"^- {LOSS}$", 60)
        broker.restart()
        for name, process in running.items():
            assert process.wait(60) == 0, f"{name} and {broker.name}:\n{process.output()}"
    finally:
        for process in running.values():
            if process.running():
                process.kill()
    # Beside what a conversation says (after a dash) stands what its library logs.
    said = {name: process.output().splitlines() for name, process in running.items()}
    return {name: [line.removeprefix("- ") for line in lines if line.startswith("- ")] for name, lines in said.items()}


@pytest.fixture(scope="module")
def said(rabbitmq, ours, tmp_path_factory):
    directory = tmp_path_factory.mktemp("clients")
    return {broker.name: converse(broker, directory) for broker in (rabbitmq, ours)}


@pytest.mark.parametrize("client", CONVERSATIONS)
def test_a_conversation_goes_as_with_rabbitmq(client, said):
    with_rabbitmq, with_ours = said["rabbitmq"][client], said["ours"][client]
    assert with_rabbitmq == with_ours
    assert with_ours[-1] == "done"
    assert with_ours.count(LOSS) == 1 and "lost" in with_ours
