"""Runs programs with other projects' client libraries against RabbitMQ and against our broker. lapin's program is an example of
the crate `broker`.

Each program declares and binds, publishes with confirms, has an unroutable message returned, consumes with a prefetch and
rejects a message once, and declares a missing queue passively. Then the broker is killed and started again; the program
reconnects and does everything once more. What it prints must be the same with both brokers.
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
    """Node with amqplib. That is installed once per lock file, into the user's cache."""
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
    """Runs all clients at once, and kills the broker once. Returns what each client printed."""
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
    # A program prints its lines with a dash; the others are its library's log.
    outputs = {name: process.output().splitlines() for name, process in running.items()}
    return {name: [line.removeprefix("- ") for line in lines if line.startswith("- ")] for name, lines in outputs.items()}


@pytest.fixture(scope="module")
def outputs(rabbitmq, ours, tmp_path_factory):
    directory = tmp_path_factory.mktemp("clients")
    return {broker.name: converse(broker, directory) for broker in (rabbitmq, ours)}


@pytest.mark.parametrize("client", CONVERSATIONS)
def test_a_conversation_goes_as_with_rabbitmq(client, outputs):
    with_rabbitmq, with_ours = outputs["rabbitmq"][client], outputs["ours"][client]
    assert with_rabbitmq == with_ours
    assert with_ours[-1] == "done"
    assert with_ours.count(LOSS) == 1 and "lost" in with_ours
