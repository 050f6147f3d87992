"""`make demo` does what the README says, with either release of the SDK."""

import os
import subprocess

import pytest
from processes import until
from testbed import ROOT, binary


@pytest.mark.parametrize("release", ["4.19.0", "3.8.0"])
def test_the_demo_runs_and_leaves_nothing_behind(release, tmp_path):
    environment = os.environ | {
        "SDK": release,
        "FARCALL_BINARIES": str(binary("farcall").parent),
        "TMPDIR": str(tmp_path),
    }
    demo = subprocess.run(
        [ROOT / "demo" / "run"], env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    lines = [line.split() for line in demo.stdout.splitlines()]
    assert ["globus-compute-sdk", release] in lines
    for result in ["Hello world, from Python 3.11.", "200/200", "ZeroDivisionError: division by zero", "[0, 1, 4, 9]", "212.0"]:
        assert result in demo.stdout, result
    assert not list(tmp_path.iterdir()), "its directory is removed"

    def gone():
        return str(tmp_path) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout

    until(gone, "its processes are gone", 10)
