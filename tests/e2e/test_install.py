"""`make install`: the files below a prefix work from there, and `make uninstall` removes them."""

import os
import subprocess

import pytest
from testbed import ROOT, binary

PROGRAMS = ["farcall", "globus-compute-endpoint"]
# Links to globus-compute-endpoint.
NAMES = ["gce", "globus-compute-diagnostic", "globus-idm-validator"]


def run(*command, **options):
    options = {"capture_output": True, "text": True, "timeout": 60, "stdin": subprocess.DEVNULL} | options
    done = subprocess.run([str(part) for part in command], **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make(target, *variables):
    return run("make", "--no-print-directory", target, f"BINARIES={binary('farcall').parent}", *variables, cwd=ROOT)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    # A blank in the path is more than `make` can take; everything else is a user's own affair.
    prefix = tmp_path_factory.mktemp("install") / "opt"
    make("install", f"PREFIX={prefix}")
    return prefix


def files(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


EVERYTHING = sorted(
    ["lib/systemd/system/farcall.service"]
    + [f"bin/{name}" for name in NAMES]
    + [
        place
        for name in PROGRAMS
        for place in [
            f"bin/{name}",
            f"share/bash-completion/completions/{name}",
            f"share/zsh/site-functions/_{name}",
            f"share/fish/vendor_completions.d/{name}.fish",
        ]
    ]
)


def test_the_programs_run_and_find_each_other(prefix, testbed):
    assert files(prefix) == EVERYTHING
    data = testbed.directory / "data"
    listen = ["--http-listen", "127.0.0.1:0", "--amqp-listen", "127.0.0.1:0"]
    # Nothing else is on the PATH but what the system brings.
    environment = testbed.environment() | {"PATH": f"{prefix}/bin:/usr/bin:/bin"}
    said = run("farcall", "up", "--data-dir", data, *listen, "--", "sh", "-c", "echo $FARCALL_ENDPOINT_ID", env=environment)
    assert len(said.strip()) == 36
    assert run(prefix / "bin/gce", "version").startswith("Globus Compute endpoint version: ")


@pytest.mark.parametrize("name", PROGRAMS)
def test_bash_completes(prefix, name):
    """As bash-completion does it: the program's file is read when the first word is it."""
    script = f"""
        . {prefix}/share/bash-completion/completions/{name}
        COMP_WORDS=({name} com) COMP_CWORD=1
        read -ra words <<< "$(complete -p {name})"
        for at in "${{!words[@]}}"; do [ "${{words[at]}}" != -F ] || function=${{words[at + 1]}}; done
        "$function" {name} com {name}
        printf '%s\n' "${{COMPREPLY[@]}}"
    """
    assert "completion" in run("bash", "-euc", script).splitlines()


@pytest.mark.parametrize("name", PROGRAMS)
def test_zsh_completes(prefix, name, tmp_path):
    """In a zsh of one's own whose `fpath` has the directory; its completion system finds the function by its first line."""
    script = f"""
        fpath=({prefix}/share/zsh/site-functions $fpath)
        autoload -Uz compinit
        compinit -D -u
        print -- $_comps[{name}]
        autoload +X _{name}
        print -- $functions[_{name}]
    """
    said = run("zsh", "-f", "-c", script, env=os.environ | {"HOME": str(tmp_path)})
    assert said.splitlines()[0] == f"_{name}"
    assert "completion" in said


@pytest.mark.parametrize("name", PROGRAMS)
def test_fish_completes(prefix, name, tmp_path):
    environment = os.environ | {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "XDG_DATA_DIRS": f"{prefix}/share",
        # It looks for completions of programs that are there.
        "PATH": f"{prefix}/bin:{os.environ['PATH']}",
    }
    said = run("fish", "--command", f"complete --do-complete '{name} comp'", env=environment)
    assert said.startswith("completion\t"), said


def test_systemd_takes_the_unit(prefix):
    unit = prefix / "lib/systemd/system/farcall.service"
    assert f"ExecStart={prefix}/bin/farcall serve" in unit.read_text()
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if "farcall" in line]
    assert (done.returncode, complaints) == (0, [])


def test_a_package_is_made_elsewhere_and_taken_away(tmp_path):
    (tmp_path / "usr/bin").mkdir(parents=True)
    theirs = tmp_path / "usr/bin/globus-idm-validator"
    theirs.write_text("upstream's")
    make("install", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    assert files(tmp_path / "usr") == EVERYTHING
    assert theirs.read_text() == "upstream's" and (tmp_path / "usr/bin/gce").readlink().name == "globus-compute-endpoint"
    assert "ExecStart=/usr/bin/farcall" in (tmp_path / "usr/lib/systemd/system/farcall.service").read_text()
    mine = tmp_path / "usr/bin/mine"
    mine.write_text("of somebody else")
    make("uninstall", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    assert files(tmp_path / "usr") == ["bin/globus-idm-validator", "bin/mine"]
    assert sorted(path.name for path in (tmp_path / "usr/bin").iterdir()) == ["globus-idm-validator", "mine"]
