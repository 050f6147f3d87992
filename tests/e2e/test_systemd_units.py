"""The systemd units: the service's in `docs`, and those that `enable-on-boot` writes for endpoints."""

import json
import re
import subprocess

from rest import Rest
from testbed import ROOT, binary

UNIT = ROOT / "docs" / "farcall.service"


def here(directory):
    """The service's unit, with the program as cargo left it."""
    path = directory / "farcall.service"
    path.write_text(UNIT.read_text().replace("/usr/local/bin/farcall", str(binary("farcall"))))
    return path


def settings(text):
    """The keys of the section Service with their values, in order."""
    section = text.split("[Service]")[1].split("\n[")[0]
    return [(key, value) for key, value in re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE)]


def verified(unit):
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    # Unknown keys are told and forgiven: any word is a complaint about this unit.
    return done.returncode, [line for line in done.stderr.splitlines() if unit.stem in line]


def test_systemd_finds_nothing_to_say(tmp_path):
    assert verified(here(tmp_path)) == (0, [])


def test_the_service_is_started_again_without_end():
    """A database server may be away for longer than the five starts that systemd permits in ten seconds by default."""
    unit = UNIT.read_text()
    assert "\nStartLimitIntervalSec=0\n" in unit.split("[Service]")[0]
    assert {("Restart", "on-failure"), ("RestartSec", "5")} <= set(settings(unit))


def test_the_service_is_exposed_little(tmp_path):
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", here(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    score = re.search(r"Overall exposure level for farcall\.service: ([\d.]+)", done.stdout)
    assert score and float(score[1]) < 3, done.stdout + done.stderr


def calls(group):
    """The system calls of one of systemd's groups."""
    done = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True, timeout=60)
    words = [line.split("#")[0].strip() for line in done.stdout.splitlines()[1:]]
    return {call for word in words if word for call in (calls(word) if word.startswith("@") else [word])}


def test_the_service_does_nothing_that_its_unit_forbids(testbed):
    data, trace = testbed.directory / "data", testbed.directory / "trace"
    listen = ["--http-listen", "127.0.0.1:0", "--amqp-listen", "127.0.0.1:0"]
    traced = ["strace", "-D", "-f", "-qq", "-e", "signal=none", "-o", trace]
    process = testbed.start("traced", [*traced, binary("farcall"), "serve", "--data-dir", data, *listen], testbed.environment())
    origin = process.wait_for(r"farcall is ready: (\S+)", 60)[1]

    def administer(*arguments):
        command = [binary("farcall"), *arguments, "--data-dir", data]
        done = subprocess.run(command, env=testbed.environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    client = json.loads(administer("client", "add", "tests", "--output", "json"))
    rest = Rest(origin, client["client_id"], client["client_secret"])
    rest.post("/v3/functions", {"function_name": "f", "function_code": "7\n01\ngASV", "serialized": True})
    administer("backup", testbed.directory / "backup")
    assert process.stop() == 0
    text = trace.read_text(errors="replace")

    known = dict(settings(UNIT.read_text()))
    filters = [value for key, value in settings(UNIT.read_text()) if key == "SystemCallFilter"]
    allowed = set()
    for value in filters:
        these = {call for group in value.removeprefix("~").split() for call in calls(group)}
        allowed = allowed - these if value.startswith("~") else allowed | these
    # Before it is the service, and what SQLite asks of root only.
    used = set(re.findall(r"^\d+ +(\w+)\(", text, re.MULTILINE)) - {"execve", "fchown"}
    assert len(used) > 30 and used <= allowed, used - allowed
    families = set(re.findall(r"^\d+ +socket\((AF_\w+)", text, re.MULTILINE))
    assert families and families <= set(known["RestrictAddressFamilies"].split()), families
    assert not re.findall(r"^.*PROT_WRITE\|PROT_EXEC.*$", text, re.MULTILINE), "memory that is written and run"


def test_an_endpoints_unit_sets_nothing_that_tasks_inherit(testbed):
    """A task may do what its user may: `sudo`, `ping`, files in /home and /tmp, as many files and as much memory as at a login."""
    units, base = testbed.directory / "units", testbed.directory / "endpoints"
    units.mkdir()
    environment = testbed.environment(FARCALL_SYSTEMD_UNITS=units)
    command = [binary("globus-compute-endpoint"), "-c", base]
    subprocess.run([*command, "configure", "ep"], env=environment, check=True, capture_output=True, timeout=60)
    (base / "ep" / "client.env").write_text("")
    done = subprocess.run([*command, "enable-on-boot", "ep"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    unit = units / "globus-compute-endpoint-ep.service"
    assert verified(unit) == (0, [])
    about = {"EnvironmentFile", "ExecStart", "ExecStop", "ExecReload", "User", "Type", "NotifyAccess", "KillMode", "KillSignal", "TimeoutStartSec", "TimeoutStopSec"}
    about |= {"Restart", "RestartSec", "RestartPreventExitStatus", "SuccessExitStatus"}
    assert {key for key, _ in settings(unit.read_text())} <= about


def test_a_managers_unit(testbed):
    """What P1 says, and nothing that its user endpoints inherit to their harm."""
    units, base = testbed.directory / "units", testbed.directory / "endpoints"
    units.mkdir()
    environment = testbed.environment(FARCALL_SYSTEMD_UNITS=units)
    command = [binary("globus-compute-endpoint"), "-c", base]

    def run(*words):
        done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("configure", "--multi-user", "prod_gpu_large")
    (base / "prod_gpu_large" / "client.env").write_text("")
    service = "globus-compute-endpoint-prod_gpu_large"
    unit = units / f"{service}.service"
    assert run("enable-on-boot", "prod_gpu_large") == (
        f"Systemd service installed at {unit}. Run\n\tsudo systemctl enable {service} --now\n"
        "to enable the service and start the endpoint.\n"
    )
    assert verified(unit) == (0, [])
    wanted = {
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
        ("KillMode", "mixed"),
        ("OOMPolicy", "continue"),
        ("TasksMax", "infinity"),
        ("Restart", "always"),
    }
    found = settings(unit.read_text())
    assert wanted <= set(found)
    about = {"EnvironmentFile", "ExecStart", "ExecReload", "User", "Type", "KillMode", "TimeoutStopSec", "Restart", "RestartSec"}
    about |= {"RestartPreventExitStatus", "OOMPolicy", "TasksMax", "LimitNOFILE"}
    assert {key for key, _ in found} <= about
    # As many files as systemd permits by default, and more of them without asking.
    assert ("LimitNOFILE", "16384:524288") in found
    said = run("disable-on-boot", "prod_gpu_large")
    for line in (f"systemctl stop {service}", f"systemctl disable {service}", f"rm {unit}"):
        assert line in said
    assert unit.exists()
