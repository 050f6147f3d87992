"""Our manager with PAM: the site's own rules decide who may start a user endpoint, and what it starts with."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import local_users
import pytest
from processes import until

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))

FACTS = """
    import sys

    def facts():
        import os, pathlib, resource, subprocess

        home = pathlib.Path.home()
        status = pathlib.Path("/proc/self/status").read_text()
        return {
            "uid": os.getuid(),
            "home": [str(home), os.getcwd(), home.stat().st_uid],
            "files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            "variable": os.environ.get("FROM_PAM"),
            "gains": "NoNewPrivs:\\t0" in status,
            "setuid": subprocess.run([home / "id", "-u"], capture_output=True, text=True).stdout if (home / "id").exists() else None,
        }

    with executor(sys.argv[1]) as ex:
        report(ex.submit(facts).result(timeout=100))
"""

FAILS = """
    import json, sys

    def nothing():
        pass

    config = json.loads(sys.argv[2]) if len(sys.argv) > 2 else None
    with executor(sys.argv[1], user_endpoint_config=config) as ex:
        report(str(ex.submit(nothing).exception(timeout=100)))
"""

MANY = """
    import sys
    from concurrent.futures import ThreadPoolExecutor

    def where():
        import os

        return [os.getuid(), os.getppid()]

    def submit(_):
        with executor(sys.argv[1]) as ex:
            return ex.submit(where).result(timeout=100)

    with ThreadPoolExecutor(5) as pool:
        report(sorted(set(map(tuple, pool.map(submit, range(10))))))
"""

DENIED = "Unable to start user endpoint process for {} [exit code: 71; (PermissionError) see your system administrator]"


class Site:
    """A site's files, and what its hook saw of sessions."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()
        self.nologin = directory / "nologin"
        self.limits = directory / "limits"
        self.limits.write_text("alicia hard nofile 256\n")
        self.variables = directory / "variables"
        self.variables.write_text("FROM_PAM=yes\n")
        self.hook = directory / "hook"
        self.hang = directory / "hang"
        self.hook.write_text(
            f'#!/bin/sh\n[ ! -e {self.hang} ] || exec sleep 1000\necho "$PAM_TYPE $PAM_USER $PAM_SERVICE" >> {directory}/sessions\n'
        )
        self.hook.chmod(0o755)

    def lines(self):
        return [
            # Nobody is asked to prove who they are, nor for a new password.
            "auth required pam_deny.so",
            "password required pam_deny.so",
            "account requisite pam_shells.so",
            f"account required pam_nologin.so file={self.nologin}",
            f"session required pam_limits.so conf={self.limits}",
            f"session required pam_env.so conffile=/dev/null envfile={self.variables}",
            "session required pam_mkhomedir.so",
            f"session required pam_exec.so {self.hook}",
        ]

    def sessions(self, manager, user):
        """What happened to sessions of this user, in order."""
        path = self.directory / "sessions"
        lines = path.read_text().splitlines() if path.exists() else []
        wanted = [line.split() for line in lines]
        return [kind for kind, name, service in wanted if (name, service) == (user, manager.pam.name)]

    def closed_once(self, manager, user, times=1):
        both = ["open_session", "close_session"] * times
        until(lambda: self.sessions(manager, user) == both, f"the sessions of {user} are closed", 10)


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


@pytest.fixture(scope="module")
def site(shared_testbed):
    return Site(shared_testbed.directory / "site")


def started(shared_testbed, service, people, site, name):
    mapping = local_users.ids(people, *local_users.NAMES)
    manager = local_users.OwnManager(shared_testbed, service, mapping, name=name, pam=site.lines())
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    return manager


@pytest.fixture(scope="module")
def manager(shared_testbed, service, users, people, site):
    return started(shared_testbed, service, people, site, "pam")


def refused(service, manager, people, name):
    """Nobody of this name is let in. Returns what the log says of it."""
    before = len(manager.log_text())
    (text,) = service.sdk("4.19.0", people[name]).run(FAILS, manager.id)
    assert f"Request payload failed validation: {DENIED.format(name)}" in text, text
    assert not local_users.processes_of(name)
    assert manager.pam.name not in text, "the reason is for the administrator"
    return manager.log_text()[before:]


def setuid_copy_of_id(home):
    copy = Path(home) / "id"
    shutil.copy("/usr/bin/id", copy)
    copy.chmod(0o4755)


def test_who_has_no_shell_is_refused(service, manager, site, users, people):
    log = refused(service, manager, people, "jessica")
    assert "PAM account: (error code: 7 [PAM_AUTH_ERR]) Authentication failure" in log
    assert site.sessions(manager, "jessica") == []


def test_what_the_site_gives_reaches_a_task(service, manager, site, users, people):
    alicia = users["alicia"]
    setuid_copy_of_id(alicia.pw_dir)
    (facts,) = service.sdk("4.19.0", people["alicia"]).run(FACTS, manager.id)
    assert facts["uid"] == alicia.pw_uid
    assert (facts["files"], facts["variable"]) == (256, "yes")
    assert facts["gains"] and facts["setuid"].strip() == "0", "setuid programs work"
    pid = manager.user_endpoint("alicia")
    holder = local_users.parent_of(pid)
    assert holder in manager.children()
    assert Path(f"/proc/{holder}/cmdline").read_text().startswith("Endpoint session of alicia [")
    assert f"Creating new user endpoint (pid: {pid}) [(alicia, uep.{manager.id}." in manager.log_text()
    assert site.sessions(manager, "alicia") == ["open_session"]

    os.kill(pid, signal.SIGKILL)
    site.closed_once(manager, "alicia")
    manager.wait_for_log(rf"Command terminated by signal: 9 \({pid}\) \[\(alicia, uep\.")
    assert not Path(f"/proc/{holder}").exists()

    service.sdk("4.19.0", people["alicia"]).run(FACTS, manager.id)
    os.kill(local_users.parent_of(manager.user_endpoint("alicia")), signal.SIGKILL)
    until(lambda: not local_users.processes_of("alicia"), "all is gone, which is promised within 2 s", 10)
    site.closed_once(manager, "alicia", times=2)


def test_a_site_that_is_closed_lets_nobody_new_in(service, manager, site, users, people):
    roberto = service.sdk("4.19.0", people["roberto"])
    roberto.run(FACTS, manager.id)
    pid = manager.user_endpoint("roberto")
    site.nologin.write_text("closed for maintenance\n")
    try:
        log = refused(service, manager, people, "harper")
        assert "[PAM_AUTH_ERR]" in log and "closed for maintenance" in log
        roberto.run(FACTS, manager.id)
        assert manager.user_endpoint("roberto") == pid, "who is in stays in"
    finally:
        site.nologin.unlink()
    away = manager.pam.path.with_name(f".{manager.pam.name}.away")
    manager.pam.path.rename(away)
    try:
        log = refused(service, manager, people, "harper")
        assert f"PAM: {manager.pam.path} does not exist, so nobody is allowed by the service" in log
    finally:
        away.rename(manager.pam.path)

    harper = users["harper"]
    shutil.rmtree(harper.pw_dir)
    (facts,) = service.sdk("4.19.0", people["harper"]).run(FACTS, manager.id)
    home, directory, owner = facts["home"]
    assert (home, owner) == (harper.pw_dir, harper.pw_uid), "a module made it"
    assert directory.startswith(home)


def test_a_hot_restart_and_the_stop_keep_each_session_whole(service, manager, site, users, people):
    roberto = service.sdk("4.19.0", people["roberto"])
    roberto.run(FACTS, manager.id)
    pid = manager.user_endpoint("roberto")
    children = set(manager.children())
    before = site.sessions(manager, "roberto")
    os.kill(manager.process.pid, signal.SIGHUP)
    until(lambda: manager.log_text().count("Endpoint Manager begins") == 2, "it begins again")
    roberto.run(FACTS, manager.id)
    assert set(manager.children()) == children
    assert manager.user_endpoint("roberto") == pid
    assert site.sessions(manager, "roberto") == before == ["open_session"]

    # One that does not listen is killed at the second request, and not by the manager: its session has to be closed.
    deaf = manager.user_endpoint("harper")
    os.kill(deaf, signal.SIGSTOP)
    os.kill(manager.process.pid, signal.SIGTERM)
    manager.wait_for_log(rf"Command stopped normally \({pid}\) \[\(roberto, uep\.")
    assert manager.process.running()
    os.kill(manager.process.pid, signal.SIGTERM)
    assert manager.process.wait(5) == 0
    assert f"Command terminated by signal: 9 ({deaf}) [(harper, uep." in manager.log_text()
    for name in ("roberto", "harper"):
        site.closed_once(manager, name)


def test_the_death_of_the_manager_ends_all_and_closes_each_session_once(shared_testbed, service, site, users, people):
    """Many submits of two people have started one user endpoint for each."""
    manager = started(shared_testbed, service, people, site, "killed")
    names = ("roberto", "tory")
    running = {name: service.sdk("4.19.0", people[name]).start(MANY, manager.id) for name in names}
    for name, client in running.items():
        (found,) = client.finish()
        assert [uid for uid, _ in found] == [users[name].pw_uid], found
        assert site.sessions(manager, name) == ["open_session"]
    holders = manager.children()
    assert len(holders) == 2
    # One that does not listen.
    os.kill(manager.user_endpoint("tory"), signal.SIGSTOP)
    manager.kill()
    promised = "all is gone, which is promised within 2 s"
    for name in names:
        until(lambda name=name: not local_users.processes_of(name), promised, 10)
        site.closed_once(manager, name)
    until(lambda: not any(Path(f"/proc/{holder}").exists() for holder in holders), promised, 10)


@pytest.mark.long
def test_a_module_that_hangs_only_delays_a_hot_restart(shared_testbed, service, site, users, people):
    manager = started(shared_testbed, service, people, site, "hangs")
    roberto = service.sdk("4.19.0", people["roberto"])
    roberto.run(FACTS, manager.id)
    pid = manager.user_endpoint("roberto")
    site.hang.touch()
    try:
        waiting = service.sdk("4.19.0", people["tory"]).start(FAILS, manager.id)
        until(lambda: len(manager.children()) == 2, "the launcher is at work")
        os.kill(manager.process.pid, signal.SIGHUP)
        until(lambda: manager.log_text().count("Endpoint Manager begins") == 2, "it begins again", 100)
    finally:
        site.hang.unlink()
    (text,) = waiting.finish()
    assert "the start did not come to an end within 30 s and was stopped" in text
    assert "The hot restart waits for these, and nothing new begins:\n  launcher pid " in manager.log_text()
    roberto.run(FACTS, manager.id)
    assert manager.user_endpoint("roberto") == pid
    service.sdk("4.19.0", people["tory"]).run(FACTS, manager.id)


class WithoutLibrary(local_users.OwnManager):
    """On a machine that has no PAM."""

    def command(self, *arguments):
        listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
        hide = [f"mount --bind /dev/null {path}" for path in re.findall(r"libpam\.so\.0 .*=> (\S+)", listed)]
        assert hide
        script = " && ".join([*hide, 'exec "$@"'])
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *super().command(*arguments)]


def test_without_the_library_pam_is_refused_and_all_else_works(shared_testbed, service, users, people):
    """And without PAM nobody gains privileges, which is said where it matters."""
    needs = WithoutLibrary(shared_testbed, service, {}, name="needs", pam=["account required pam_permit.so"])
    try:
        needs.configure()
        done = needs.run("start", "needs")
        assert done.returncode == 72
        assert "PAM is enabled, but its library libpam.so.0 can't be loaded" in done.stderr
        assert not (needs.home / "endpoint.json").exists(), "nothing is registered"
    finally:
        needs.stop()

    template = local_users.TEMPLATE.replace("type: LocalProvider", 'type: LocalProvider\n        worker_init: {{ init|default("") }}')
    manager = WithoutLibrary(shared_testbed, service, local_users.ids(people, "alicia"), name="plain", template=template)
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    setuid_copy_of_id(users["alicia"].pw_dir)
    sdk = service.sdk("4.19.0", people["alicia"])
    (facts,) = sdk.run(FACTS, manager.id)
    assert not facts["gains"] and facts["setuid"].strip() == str(users["alicia"].pw_uid)

    fails = "echo 'newuidmap: write to uid_map failed: Operation not permitted' >&2; exit 1"
    (text,) = sdk.run(FAILS, manager.id, f'{{"init": "{fails}"}}')
    assert "newuidmap" in text and "pam.enable" in text, text
