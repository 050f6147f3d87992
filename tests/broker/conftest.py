"""The two brokers, one of each for the tests of a file."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from ours import Ours  # noqa: E402
from rabbitmq import RabbitMQ  # noqa: E402
from stage import KEPT  # noqa: E402


def started(kind, tmp_path_factory, **options):
    broker = kind(tmp_path_factory.mktemp(kind.name), **options)
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory):
    yield from started(RabbitMQ, tmp_path_factory, kept=KEPT)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    yield from started(Ours, tmp_path_factory, kept=KEPT)
