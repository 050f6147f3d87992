"""A real RabbitMQ for the fault tests that need one, and the modules of `tests/broker` and `tests/chaos` to import."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "broker"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "chaos"))

from rabbitmq import RabbitMQ  # noqa: E402


@pytest.fixture(scope="module")
def rabbitmq():
    broker = RabbitMQ()
    yield broker
    broker.stop()
