"""Runs every command of upstream's guide for single-user endpoints at a terminal, and compares the screen with the page.

`guide/` holds the console blocks of two versions of the guide. Where they differ, the newer one counts. Each command is
run, or listed in `LEFT_OUT` with the reason."""

import re
from pathlib import Path

import pytest

import environments
from processes import alive, until
from testbed import binary

ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
PAGES = Path(__file__).resolve().parent / "guide"

TEMPLATES = "endpoints with templates come with a later version, which will make these files"
LEFT_OUT = {
    ("*", "python3 -m pipx install globus-compute-endpoint"): "our endpoint is one file, and no package",
    ("guide-3", "cat /.../.globus_compute/my_second_endpoint/config.yaml"): TEMPLATES,
    ("guide-3", "rm /.../.globus_compute/my_second_endpoint/example_identity_mapping_config.json"): TEMPLATES,
    ("guide-3", "sed -i '/identity_mapping/d' /.../.globus_compute/my_second_endpoint/config.yaml"): TEMPLATES,
}


@pytest.fixture
def release():
    return "4.19.0"


class Block:
    """A block of a page: commands, and below each what it shows."""

    def __init__(self, page, number, lines):
        self.page = page
        self.number = number
        # The command, what it shows, whether it was played.
        self.parts = []
        for line in lines:
            if line.startswith("$ "):
                self.parts.append([line[2:], [], False])
            elif self.parts:
                self.parts[-1][1].append(line)

    def command(self, index=0):
        self.parts[index][2] = True
        return self.parts[index][0]

    def shows(self, index=0):
        return "\n".join(self.parts[index][1])

    def unplayed(self):
        return [command for command, _, played in self.parts if not played]


def blocks(page):
    text = (PAGES / f"{page}.txt").read_text()
    for part in re.split(r"^%% ", text, flags=re.MULTILINE)[1:]:
        heading, *lines = part.splitlines()
        yield Block(page, int(heading.split()[0]), lines)


def plain(text):
    """Without what differs from one machine and one run to the next, and without the page's own indentation."""
    text = re.sub(r"<\.\.\.[^>]*UUID\.\.\.>|<THE_ENDPOINT_UUID>|" + ID, "<ID>", text)
    return " ".join(text.split())


class Guide:
    """Somebody with a home of their own who does what the page says."""

    def __init__(self, testbed):
        self.testbed = testbed
        self.service = testbed.service()
        python = environments.python("sdk-4.19.0")
        self.environment = self.service.client_environment(python) | {"FARCALL_SERVICE_URL": self.service.origin()}
        del self.environment["GLOBUS_COMPUTE_USER_DIR"]
        self.base = testbed.directory / "home" / ".globus_compute"
        self.units = testbed.directory / "units"
        self.units.mkdir()
        programs = testbed.directory / "bin"
        programs.mkdir()
        (programs / "globus-compute-endpoint").symlink_to(binary("globus-compute-endpoint"))
        self.environment["PATH"] = f"{programs}:{self.environment['PATH']}"
        self.environment["FARCALL_SYSTEMD_UNITS"] = str(self.units)

    def run(self, command, status=0, environment=None):
        command = command.replace("/.../.globus_compute", str(self.base))
        ended, screen = self.testbed.terminal(["bash", "-c", command], environment or self.environment).finish()
        assert ended == status, f"{command}\n{screen}"
        return screen.replace(str(self.base), "/.../.globus_compute").replace(str(self.units), "/etc/systemd/system")

    def as_written(self, block, status=0, **words):
        """Plays the block as it stands, but for some words."""
        for index in range(len(block.parts)):
            if (("*", block.parts[index][0])) in LEFT_OUT:
                continue
            command = block.command(index)
            for old, new in words.items():
                command = command.replace(old, new)
            screen = self.run(command, status)
            assert plain(block.shows(index)) in plain(screen), f"{command} showed\n{screen}"
        return screen

    def pid(self, name="my_first_endpoint"):
        return int((self.base / name / "daemon.pid").read_text())

    def log(self):
        return (self.base / "my_first_endpoint" / "endpoint.log").read_text()

    def configure(self, name):
        self.run(f"globus-compute-endpoint configure {name}")

    def start(self, name):
        self.run(f"globus-compute-endpoint start {name}")

    def stop(self, name):
        self.run(f"globus-compute-endpoint stop {name}")

    # The steps that need more than their words.

    def quickstart(self, block):
        self.as_written(block)
        self.run("rm -r /.../.globus_compute/my_first_endpoint")

    def configures(self, block):
        self.as_written(block)
        fresh = (self.base / "my_first_endpoint" / "config.yaml").read_text()
        assert fresh == FRESH

    def tables(self, block):
        """To the letter."""
        assert block.shows().strip() in self.run(block.command())

    def listed_and_seen(self, block):
        screen = self.run(block.command(0))
        assert plain(block.shows(0)) in plain(screen), screen
        seen = self.run(block.command(1))
        # Interchange and engine are part of the process itself: a departure.
        assert re.search(rf"\d+ .*Globus Compute Endpoint \({ID}, my_first_endpoint\) \[", seen), seen

    def logs(self, block):
        until(lambda: "connected to the broker" in self.log(), "it is connected", 60)
        screen = self.run(block.command())
        first = block.shows().splitlines()[0]
        # The lines after it are each implementation's own.
        assert plain(first) in plain(screen), screen
        assert re.search(r"^\S+ +INFO .*the endpoint runs", screen, re.MULTILINE), screen

    def works(self, block):
        registered = re.search(ID, (self.base / "my_first_endpoint" / "endpoint.json").read_text())[0]
        (self.testbed.directory / "does_it_work.py").write_text(DOES_IT_WORK.replace("<THE_ENDPOINT_UUID>", registered))
        assert plain(block.shows()) in plain(self.run(block.command()))

    def signals(self, block):
        self.run("globus-compute-endpoint stop my_first_endpoint")
        for index in range(2):
            self.start("my_first_endpoint")
            pid = self.pid()
            self.run(re.sub(r"<the_ce[ap]_pid>", str(pid), block.command(index)))
            until(lambda: not alive(pid), "it stops", 30)

    def starts_again_and_stops(self, block):
        self.start("my_first_endpoint")
        self.as_written(block)

    def lists_all(self, block):
        for name in ("just_configured", "debug_queue", "unexpected_disconnect"):
            self.configure(name)
        for name in ("debug_queue", "unexpected_disconnect"):
            self.start(name)
        pid = self.pid("unexpected_disconnect")
        self.run(f"kill -9 {pid}")
        until(lambda: not alive(pid), "it is gone", 30)
        screen = self.run(block.command())

        def rows(table):
            return {tuple(cell.strip() for cell in line.split("|")[2:4]) for line in table.splitlines() if "|" in line}

        assert rows(screen) == rows(block.shows()), screen
        self.stop("debug_queue")
        self.stop("unexpected_disconnect")

    def by_a_client_identity(self, block):
        """Twice: for one command, and for all that follow."""
        identity = [self.environment["GLOBUS_COMPUTE_CLIENT_ID"], self.environment["GLOBUS_COMPUTE_CLIENT_SECRET"]]
        nobody = {name: value for name, value in self.environment.items() if not name.startswith("GLOBUS_COMPUTE_CLIENT")}
        for commands in ([block.command(0)], [block.command(index) for index in (1, 2, 3)]):
            filled = "\n".join(commands)
            for word in [*identity, "my_first_endpoint"]:
                filled = filled.replace("...", word, 1)
            assert "Starting endpoint; registered ID: " in self.run(filled, environment=nobody)
            self.stop("my_first_endpoint")

    def not_enough_serializers(self, block):
        self.configure("not-enough-allowed-serializers")
        config = self.base / "not-enough-allowed-serializers" / "config.yaml"
        config.write_text("engine:\n   allowed_serializers: [globus_compute_sdk.serialize.DillCodeSource]\n")
        self.as_written(block, status=1)

    def enables(self, block):
        # The page's own slip of the pen: the service it installs is that of my_first_endpoint.
        self.as_written(block, my_first_endpointendpoint="my_first_endpoint")

    def disables(self, block):
        self.configure("my-endpoint")
        self.run("globus-compute-endpoint enable-on-boot my-endpoint")
        self.as_written(block)

    def version(self, block):
        assert plain(block.shows()).replace("2.19.0", "3.8.0") == plain(self.run(block.command()))

    def installs(self, block):
        """Of this the reason stands above."""


FRESH = """\
display_name: null
engine:
  max_workers_per_node: 1
  type: GlobusComputeEngine
  provider:
    type: LocalProvider
    init_blocks: 1
    max_blocks: 1
    min_blocks: 0
"""

DOES_IT_WORK = """\
from globus_compute_sdk import Executor

def dot_product(a, b):
    return sum(a_i * b_i for a_i, b_i in zip(a, b))

inp = ((1, 2, 3), (4, 5, 6))
with Executor(endpoint_id="<THE_ENDPOINT_UUID>") as ex:
    f = ex.submit(dot_product, *inp)
    print(f"  {'⸳'.join(map(str, inp))} ==> {f.result()}")
"""

STEPS = {
    "guide-3": {
        1: Guide.quickstart,
        2: Guide.configures,
        3: Guide.tables,
        4: Guide.as_written,
        5: Guide.listed_and_seen,
        6: Guide.logs,
        7: Guide.works,
        8: Guide.as_written,
        9: Guide.signals,
        10: Guide.lists_all,
        11: Guide.by_a_client_identity,
        12: Guide.not_enough_serializers,
        13: Guide.enables,
        14: Guide.disables,
        15: Guide.as_written,
        16: Guide.as_written,
        17: Guide.as_written,
    },
    "guide-2.19": {
        1: Guide.quickstart,
        2: Guide.installs,
        3: Guide.version,
        4: Guide.configures,
        5: Guide.tables,
        6: Guide.as_written,
        7: Guide.listed_and_seen,
        8: Guide.signals,
        9: Guide.starts_again_and_stops,
        10: Guide.lists_all,
        11: Guide.enables,
        12: Guide.disables,
    },
}


@pytest.mark.parametrize("page", STEPS)
def test_every_command_of_the_page(testbed, page):
    guide = Guide(testbed)
    steps = STEPS[page]
    played = list(blocks(page))
    assert [block.number for block in played] == list(steps)
    for block in played:
        steps[block.number](guide, block)
        left = [command for command in block.unplayed() if not {("*", command), (page, command)} & set(LEFT_OUT)]
        assert not left, f"nobody plays {left} of block {block.number}"
