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
