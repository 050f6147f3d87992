"""Fixtures: a RabbitMQ and a broker of ours for each test file."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from ours import Ours  # noqa: E402
from rabbitmq import RabbitMQ  # noqa: E402
from stage import KEPT  # noqa: E402


@pytest.fixture(scope="module")
def rabbitmq():
    broker = RabbitMQ(kept=KEPT)
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    broker = Ours(tmp_path_factory.mktemp("ours"), kept=KEPT)
    yield broker
    broker.stop()
