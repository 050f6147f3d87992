"""The environments of both SDK releases, made before the first test that asks for one."""

import sys
from pathlib import Path

import environments
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session", autouse=True)
def sdk_environments():
    for name in ("sdk-3.8.0", "sdk-4.19.0"):
        environments.make(name)
