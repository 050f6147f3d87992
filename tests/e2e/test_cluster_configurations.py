"""The guide's configurations for clusters: each is read as the site's own, and accepted or refused as the page says."""

import json
import subprocess

import guide_blocks
import pytest
from testbed import ROOT, binary

PAGE = ROOT / "docs" / "guide" / "configurations.md"
SITES = ROOT / "tests" / "sites"
BLOCKS = {block.words[0].removesuffix(".yaml"): block.text for block in guide_blocks.blocks(PAGE) if block.language == "yaml"}
NAMES = sorted(path.stem for path in SITES.glob("*.yaml"))

# What stands on the page for the blanks of the sites' files.
BLANKS = {
    "ACCOUNT": "YOUR_ACCOUNT",
    "ACCOUNT NAME": "YOUR_ACCOUNT",
    "APPTAINER_IMAGE_PATH": "osdf:///ospool/path/to/your.sif",
    "COMMAND": "module load python; source ~/globus/bin/activate",
    "CONTAINER_URI": "/path/to/your.sif",
    "FRONTERA_ACCOUNT": "YOUR_ACCOUNT",
    "GPUS_PER_WORKER": "2",
    "GPU_MAP": "0,1,2,3",
    "IMAGE": "python:3.12-bookworm",
    "NAMESPACE": "YOUR_NAMESPACE",
    "NERSC_ACCOUNT": "YOUR_ACCOUNT",
    "OPTIONS": "#SBATCH --exclusive",
    "PARTITION": "YOUR_PARTITION",
    "POLARIS_ACCOUNT": "YOUR_ACCOUNT",
    "PROJECT_NAME": "YOUR_PROJECT",
    "SECRET": "YOUR_PULL_SECRET",
    "TACC_ALLOCATION": "YOUR_ALLOCATION",
    "TOTAL_WORKERS": "4",
    "WORKERS_PER_NODE": "2",
}


def run(directory, command, name, text):
    path = directory / f"{name}.yaml"
    path.write_text(text)
    return subprocess.run(
        [binary("globus-compute-endpoint"), command, path], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_of_the_page(name, tmp_path):
    site = (SITES / f"{name}.yaml").read_text()
    for blank, value in BLANKS.items():
        site = site.replace("{{ %s }}" % blank, value)
    rendered = [run(tmp_path, "render", name, text) for text in (BLOCKS[name], site)]
    assert [done.returncode for done in rendered] == [0, 0], rendered
    meant, known = (json.loads(done.stdout) for done in rendered)
    assert meant == known, "it means what the site's own means"
    checked = run(tmp_path, "check", name, BLOCKS[name])
    runs = meant["engine"]["type"] != "GlobusMPIEngine" and meant["engine"]["provider"]["type"] == "LocalProvider"
    if runs:
        assert (checked.returncode, checked.stdout) == (0, f"{tmp_path}/{name}.yaml: good\n")
    else:
        assert checked.returncode == 78
        assert "is not part of this version yet; meanwhile" in checked.stderr or "is not supported yet; meanwhile" in checked.stderr


def test_every_site_is_on_the_page_and_one_runs():
    assert set(BLOCKS) == {*NAMES, "in_a_job"}
    assert len(NAMES) == 17
    page = PAGE.read_text()
    assert page.count("**This one runs today.**") == 1
