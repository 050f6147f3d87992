"""The unit for systemd that the documentation offers."""

import subprocess

from scene import ROOT, binary


def test_systemd_finds_nothing_to_say(tmp_path):
    unit = (ROOT / "docs" / "farcall.service").read_text()
    here = tmp_path / "farcall.service"
    here.write_text(unit.replace("/usr/local/bin/farcall", str(binary("farcall"))))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", here], capture_output=True, text=True, timeout=60)
    # Unknown keys are told and forgiven: any word is a complaint about this unit.
    complaints = [line for line in done.stderr.splitlines() if "farcall" in line]
    assert (done.returncode, complaints) == (0, [])
