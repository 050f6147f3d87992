"""A real RabbitMQ and gated tasks for the fault tests that need them, and the modules of `tests/broker` and `tests/chaos` to
import."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "broker"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "chaos"))

from gated_tasks import GatedTasks  # noqa: E402
from rabbitmq import RabbitMQ  # noqa: E402


@pytest.fixture(scope="module")
def rabbitmq():
    broker = RabbitMQ()
    yield broker
    broker.stop()


@pytest.fixture
def gated(testbed):
    return GatedTasks(testbed.directory)
