"""Runs every command of our guide (`docs/guide`, README), and compares the output with the page.

Each page has a simulated machine (`tests/guide/isolated_machine.py`): a network namespace, so that the usual ports and the
host names of the page are free, and copies of the system's directories to write to. Each named terminal has its own home
directory. Commands that can't run as they are have a replacement in `INSTEAD`, with the reason.
"""

import os
import re
import shutil
import signal
import subprocess
import time

import environments
import guide_blocks
import pytest
from processes import marked, until
from testbed import ROOT, binary

GUIDE = ROOT / "docs" / "guide"
TOOLS = ROOT / "tests" / "guide"
PASSWORD = "correct horse battery"
HOST = "compute.example.org"

# Lines of a page, what is run in their place, and why.
INSTEAD = {
    "python3 -m venv ~/globus": (
        '"$GUIDE_SDK/bin/python3" -m venv --without-pip ~/globus'
        ' && ls -d "$GUIDE_SDK"/lib/python*/site-packages > $(ls -d ~/globus/lib/python*/site-packages)/sdk.pth',
        "the packages are there already, in an environment of the tests",
    ),
    "pip install globus-compute-sdk": ("python3 -c 'import globus_compute_sdk'", "the machine has no way to PyPI"),
    "sbatch job.sh": (
        "(./job.sh > job.log 2>&1 &); until globus-compute-endpoint list | grep -q Running; do sleep 0.1; done",
        "there is no scheduler: the job runs here",
    ),
    "cd farcall": (f"cd {ROOT}", "the clone is the one that is tested"),
    "git pull": ("git status > /dev/null", "there is nobody to pull from"),
}
# Commands that ask for a password.
ASKING = ["user add ", "user reset "]
# What a page takes for granted: other pages, up to a heading.
BEFORE = {
    "cluster": [("service.md", "### The site's own accounts")],
    "moving": [("service.md", "### The site's own accounts")],
}
# `sudo`, `useradd`, `systemctl` and `journalctl` are played by `tests/guide/bin`, for there is one user and no systemd.


class Machine:
    def __init__(self, testbed, page):
        self.testbed = testbed
        self.page = page
        self.files = testbed.directory / "pages"
        self.files.mkdir()
        # Ids that the pages show, and what they are here.
        self.ids = {}
        self.terminals = {}
        # Terminals in which something goes on.
        self.left = []
        scratch = testbed.directory / "scratch"
        command = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--propagation", "private"]
        holder = testbed.start("machine", [*command, environments.python("tests"), TOOLS / "isolated_machine.py", HOST, scratch], testbed.environment())
        holder.wait_for("the machine is there")
        self.holder = holder
        (self.files / "answer").write_text(PASSWORD + "\n")
        self.certificate()

    def enter(self, *command):
        return ["nsenter", "--target", self.holder.pid, "--user", "--net", "--mount", "--preserve-credentials", "--", *command]

    def environment(self, name):
        """Of somebody who has just logged in."""
        home = self.testbed.directory / "homes" / name
        fresh = not home.exists()
        home.mkdir(parents=True, exist_ok=True)
        if fresh and name == "server":
            # What the site's authority has given its operator.
            for file in ("fullchain.pem", "privkey.pem"):
                shutil.copy(self.files / file, home)
        path = [TOOLS / "bin", "/usr/local/bin", *os.environ["PATH"].split(os.pathsep)]
        if self.page.stem != "install" and self.page != FIRST and name != "server":
            # Installed, and found by the shell, as the page before says.
            path += [home / ".local" / "bin", binary("farcall").parent]
        return self.testbed.environment() | {
            "PATH": os.pathsep.join(map(str, path)),
            "HOME": str(home),
            "BINARIES": str(binary("farcall").parent),
            "GUIDE_SDK": str(environments.python("sdk-4.19.0").parent.parent),
            "GUIDE_UNITS": str(self.testbed.directory / "units"),
            # The authority of the certificate is one that everybody trusts.
            "SSL_CERT_FILE": str(self.files / "ca.pem"),
            "GLOBUS_SDK_VERIFY_SSL": str(self.files / "ca.pem"),
            "COLUMNS": "200",
        }

    def certificate(self):
        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], cwd=self.files, check=True, capture_output=True)

        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl("req", "-x509", *curve, "-days", "99", "-subj", "/CN=An authority", "-keyout", "ca.key", "-out", "ca.pem")
        openssl("req", *curve, "-subj", f"/CN={HOST}", "-keyout", "privkey.pem", "-out", "request.pem")
        (self.files / "names").write_text(f"subjectAltName=DNS:{HOST}\n")
        openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "99",
                "-extfile", "names", "-out", "fullchain.pem")

    def terminal(self, name):
        if name not in self.terminals:
            self.terminals[name] = Shell(self, name, len(self.left))
        return self.terminals[name]

    def script(self, block):
        """The block as it is run."""
        lines = []
        for line in block.text.splitlines():
            bare = line.split("  #")[0].rstrip()
            if bare in INSTEAD:
                line = INSTEAD[bare][0]
            for shown, real in self.ids.items():
                line = line.replace(shown, real)
            if any(words in bare for words in ASKING):
                line = f"{line} < {self.files / 'answer'}"
            lines.append(line)
        path = self.files / f"{block.page.stem}-{block.line}.sh"
        path.write_text("\n".join(["set -e", *lines, "set +e", ""]))
        return path

    def run(self, block):
        name = block.options.get("on", "here")
        if block.language != "sh":
            file = [word for word in block.words if "=" not in word]
            if file:
                target = self.testbed.directory / "homes" / name
                self.environment(name)
                (target / file[0]).write_text(block.text)
            return
        if block.words == ["stays"]:
            # The reader's terminal has something to do from here on.
            terminal = self.terminal(name)
            terminal.leave(block)
            del self.terminals[name]
            self.left.append(terminal)
            self.wait(block, terminal.printed, terminal.running)
            return
        if "stays" in block.words:
            environment = self.environment(name)
            command = self.enter("env", f"--chdir={environment['HOME']}", "bash", "--noprofile", "--norc", self.script(block))
            process = self.testbed.start(f"{block.page.stem}-{block.line}", command, environment)
            self.wait(block, process.output, process.running)
            return
        printed = self.terminal(name).run(block)
        if block.shown is not None:
            assert guide_blocks.shows(printed, block.shown, self.ids), f"{block} shows\n{printed}\nand the page says\n{block.shown}"

    def wait(self, block, printed, running):
        """Waits until what goes on has printed what the page shows."""

        def shown():
            assert running() or guide_blocks.shows(printed(), block.shown, self.ids), f"{block} ended:\n{printed()}"
            return guide_blocks.shows(printed(), block.shown, self.ids)

        try:
            until(shown, f"{block} shows what the page says", 120)
        except AssertionError:
            raise AssertionError(f"{block} shows\n{printed()}\nand the page says\n{block.shown}") from None

    def close(self):
        for terminal in self.terminals.values():
            terminal.close()
        # What a page leaves running is the reader's own; here it is asked to stop, services last.
        for _ in range(2):
            end = time.monotonic() + 20
            for pid in self.running():
                try:
                    os.kill(pid, signal.SIGTERM)
                except ProcessLookupError:
                    pass
            while self.running() and time.monotonic() < end:
                time.sleep(0.05)
        for terminal in self.left:
            terminal.close()
        self.holder.kill()

    def running(self):
        return [pid for pid in marked(self.testbed.mark) if pid != self.holder.pid]


class Shell:
    """A shell at one terminal: blocks run in it one after another, and keep what they have set."""

    def __init__(self, machine, name, number):
        self.machine = machine
        self.log = machine.testbed.directory / f"terminal-{name}-{number}.log"
        environment = machine.environment(name)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [str(word) for word in machine.enter("env", f"--chdir={environment['HOME']}", "bash", "--noprofile", "--norc")],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.seen = 0

    def run(self, block):
        path = self.machine.script(block)
        run = f". {path}"
        if "login" in block.options:
            python = environments.python("tests")
            run = f"{python} {TOOLS / 'log_in_at_terminal.py'} {block.options['login']} '{PASSWORD}' bash {path}"
        mark = f"end of {block.line}"
        line = f"{run} < /dev/null; printf '\\n{mark} %s\\n' $?\n"
        if "fails" in block.words:
            # A command that fails doesn't end the terminal.
            path.write_text(path.read_text().replace("set -e\n", "", 1).replace("\nset +e\n", "\n"))
        self.type(line)

        def ended():
            text = self.log.read_text(errors="replace")[self.seen :]
            return (found := re.search(rf"\n{mark} (\d+)\n", text)) and (text, found) or self.process.poll() is not None and (text, None)

        text, found = until(ended, f"{block} comes to its end", 300)
        printed = text[: found.start()] if found else text
        failed = found is None or found[1] != "0"
        assert failed == ("fails" in block.words), f"{block} {'fails' if failed else 'does not fail'}:\n{block.text}\n{printed}"
        self.seen += found.end()
        return printed

    def leave(self, block):
        """Runs what does not end by itself."""
        self.type(f". {self.machine.script(block)} < /dev/null\n")

    def type(self, line):
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()

    def printed(self):
        return self.log.read_text(errors="replace")[self.seen :]

    def running(self):
        return self.process.poll() is None

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


PAGES = sorted(GUIDE.glob("*.md"))
FIRST = ROOT / "README.md"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [FIRST, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(testbed, page):
    machine = Machine(testbed, page)
    try:
        for before, until_heading in BEFORE.get(page.stem, []):
            end = (GUIDE / before).read_text().splitlines().index(until_heading)
            for block in guide_blocks.blocks(GUIDE / before):
                if block.line <= end:
                    machine.run(block)
        for block in guide_blocks.blocks(page):
            machine.run(block)
    finally:
        machine.close()


def test_what_is_not_run_as_it_stands_is_there():
    lines = {line.split("  #")[0].rstrip() for page in [FIRST, *PAGES] for block in guide_blocks.blocks(page) for line in block.text.splitlines()}
    assert set(INSTEAD) <= lines, "a line that no page has any more"


def test_every_block_is_known():
    """Commands hide in no other block, and every page is linked from the first."""
    first = (GUIDE / "README.md").read_text()
    for page in PAGES:
        assert page.name == "README.md" or f"]({page.name})" in first, page.name
        for block in guide_blocks.blocks(page):
            assert block.language in {"sh", "text", "yaml", "jinja", "json", "python"}, str(block)
            assert not re.search(r"^\$ ", block.text, re.MULTILINE), f"{block}: a prompt"
