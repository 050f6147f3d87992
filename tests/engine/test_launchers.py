"""Parsl's launchers still call the programs of batch systems as our golden file says, which ours are held to."""

import subprocess
from pathlib import Path

import environments
import pytest
from make_launchers import GOLDEN

MAKER = Path(__file__).with_name("make_launchers.py")


@pytest.mark.parametrize("release", ["3.8.0", "4.19.0"])
def test_the_golden_calls_are_those_of_parsl(release):
    made = subprocess.run(
        [environments.python(f"sdk-{release}"), MAKER, "--print"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert made.stdout == GOLDEN.read_text()
