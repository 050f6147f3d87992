"""Attacks on a manager that root runs for many people, and by its users on each other."""

import json
import os
from pathlib import Path

import local_users
import pytest
from processes import until
from table import attack, played_elsewhere

PROCESSES = "crates/endpoint/tests/processes"
LAUNCH = "crates/manager/tests/launch"
MANAGE = "crates/endpoint/src/manage"
CORE = "crates/manager/src/core/tests"

# What a task can do to a process of somebody else, and to root's files: {what: error}.
REACHES = """
    import json, sys

    def reach(processes, files, users):
        import ctypes, os, pwd, signal

        found = {}

        def tried(what, action):
            try:
                action()
                found[what] = "done"
            except OSError as error:
                found[what] = error.errno

        libc = ctypes.CDLL(None, use_errno=True)

        def ptrace(pid):
            if libc.ptrace(16, pid, 0, 0) != 0:  # PTRACE_ATTACH
                raise OSError(ctypes.get_errno(), "ptrace")

        for pid in processes:
            for number in [0, *sorted(signal.valid_signals())]:
                tried(f"signal {number} to {pid}", lambda: os.kill(pid, number))
            for name in ("environ", "mem", "maps", "fd/0", "fd/3"):
                tried(f"/proc/{pid}/{name}", lambda: open(f"/proc/{pid}/{name}", "rb").read(1))
            tried(f"ptrace {pid}", lambda: ptrace(pid))
            tried(f"scheduling of {pid}", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
            tried(f"limits of {pid}", lambda: __import__("resource").prlimit(pid, __import__("resource").RLIMIT_NOFILE, (3, 3)))
        for name in files:
            tried(f"read {name}", lambda: open(name, "rb").read(1))
            tried(f"write {name}", lambda: open(name, "ab").close())
            tried(f"remove {name}", lambda: os.unlink(name))
        for name in users:
            uid = pwd.getpwnam(name).pw_uid
            tried(f"become {name}", lambda: os.setuid(uid))
            tried(f"become {name} and back", lambda: os.setresuid(-1, uid, -1))
            tried(f"groups of {name}", lambda: os.setgroups([pwd.getpwnam(name).pw_gid]))
        return found

    with executor(sys.argv[1]) as ex:
        report(ex.submit(reach, *json.loads(sys.argv[2])).result(timeout=100))
"""

WHERE = """
    import sys

    def where():
        import os

        return os.getppid()

    with executor(sys.argv[1]) as ex:
        report(ex.submit(where).result(timeout=100))
"""

KILLS_ITS_OWN = """
    import sys

    def kill_user_endpoint(manager):
        import os, signal, time

        # Up the process tree, to the child of the manager.
        pid = os.getpid()
        while True:
            with open(f"/proc/{pid}/stat") as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            if parent == manager:
                break
            pid = parent
        os.kill(pid, signal.SIGKILL)
        time.sleep(60)

    with executor(sys.argv[1]) as ex:
        report(str(ex.submit(kill_user_endpoint, int(sys.argv[2])).exception(timeout=100)))
"""


class Site:
    """A manager, an attacker `alicia` and a bystander `roberto`, each with an account."""

    def __init__(self, testbed, users):
        self.users = users
        self.service = testbed.service()
        self.people = {name: self.service.add_client(name) for name in ("alicia", "roberto")}
        self.manager = local_users.OwnManager(testbed, self.service, local_users.ids(self.people, "alicia", "roberto"))
        testbed.endpoints.append(self.manager)
        self.manager.configure()
        self.manager.start()

    def run(self, person, script, *arguments):
        (found,) = self.service.sdk("4.19.0", self.people[person]).run(script, self.manager.id, *arguments)
        return found

    def user_endpoint(self, person):
        (pid,) = [pid for pid in self.manager.children() if pid in local_users.processes_of(person)]
        return pid


def with_site(play):
    def row(testbed):
        reason = local_users.skip_reason()
        if reason:
            pytest.skip(reason)
        with local_users.LocalUsers() as users:
            try:
                play(Site(testbed, users))
            finally:
                # Before the accounts go.
                for endpoint in testbed.endpoints:
                    endpoint.stop()

    row.__name__ = play.__name__
    return row


@attack("a task below a manager", "signals, reads or changes the manager, root's files or another user's user endpoint")
@with_site
def reaches_for_others(site):
    before = site.run("roberto", WHERE)
    theirs, manager = site.user_endpoint("roberto"), site.manager
    home = Path(site.users["roberto"].pw_dir)
    files = [str(manager.home / name) for name in ("config.yaml", "mapping.json", "endpoint.log", "endpoint.json", "daemon.pid")]
    files += [str(next(home.glob(".globus_compute/uep.*/endpoint.log")))]
    found = site.run("alicia", REACHES, json.dumps([[manager.process.pid, theirs], files, ["root", "roberto"]]))
    # EPERM, EACCES; what is there cannot be seen either. A process's priority may be asked for, and not changed.
    assert {what for what, error in found.items() if error not in (1, 13)} == set(), found
    assert len(found) > 150
    assert manager.process.running()
    assert site.user_endpoint("roberto") == theirs
    assert site.run("roberto", WHERE) == before, "the same node still runs"


@attack("a task below a manager", "kills its own user endpoint, and takes the manager or another user's tasks with it")
@with_site
def kills_its_own_user_endpoint(site):
    before = site.run("roberto", WHERE)
    text = site.run("alicia", KILLS_ITS_OWN, site.manager.process.pid)
    assert "Lost" in text or "signal 9" in text, text
    site.manager.wait_for_log(r"Command terminated by signal: 9 \(\d+\) \[\(alicia, uep\.")
    assert isinstance(site.run("alicia", WHERE), int), "the next task has a new user endpoint"
    assert site.run("roberto", WHERE) == before
    # Nothing of the one that was killed is left.
    until(lambda: len([pid for pid in local_users.processes_of("alicia") if Path(f"/proc/{pid}/stat").exists()
                       and os.getsid(pid) == pid and pid in site.manager.children()]) == 1, "one user endpoint")


for who, tries, test in (
    ("who has taken over the service", "sends a manager 10,000 malformed, old, oversized and cut-off commands",
     f"{PROCESSES}/hostile_commands.rs::ten_thousand_hostile_commands_create_nothing"),
    ("a submitter", "names another endpoint's directory", "crates/manager/src/command_tests.rs::any_name"),
    ("a submitter", "writes a second line into the manager's log", "crates/manager/src/command_tests.rs::a_name_in_the_log_is_one_line"),
    ("a submitter", "is mapped to root", "crates/manager/src/mapping/name.rs::an_allowed_name_is_plain"),
    ("a submitter", "makes an expression of the mapping run for ever", "crates/manager/src/mapping/pattern.rs::matching_is_bounded"),
    ("a submitter", "passes an option that becomes structure of the configuration",
     "crates/manager/tests/template.rs::an_option_arrives_as_the_value_that_was_sent"),
    ("a submitter", "passes an option that makes a template run for ever or fill the memory",
     "crates/manager/tests/template.rs::runaway_templates_end_with_an_error"),
    ("a submitter", "passes an option that makes a schema run for ever", "crates/manager/tests/template.rs::runaway_schemas_end_with_an_error"),
    ("a submitter", "starts user endpoints until nobody else can", f"{CORE}/limits.rs::one_user_leaves_room_for_others"),
    ("a submitter", "fills the manager's memory with large commands", f"{CORE}/limits.rs::commands_that_wait_are_bounded_in_bytes"),
    ("a local user", "stops its launchers, so that nobody else's start begins", f"{CORE}/places.rs::the_last_quarter_of_the_places_is_kept_for_others"),
    ("a local user", "keeps a hot restart from happening by a start that does not end",
     f"{CORE}/places.rs::a_launcher_that_does_not_end_is_killed_and_leaves_its_place"),
    ("a local user", "ends its user endpoint by a signal that has no name", f"{MANAGE}/processes/tests.rs::a_child_that_a_real_time_signal_killed_has_ended"),
    ("a local user", "has root signal a process whose number it chose", "crates/manager/src/launch/reports.rs::numbers_that_may_not_be_signalled"),
    ("a local user", "writes records of others into the audit log", "crates/manager/src/audit.rs::a_user_endpoint_writes_one_line_in_its_own_name"),
    ("a local user", "fills the disk with the audit log", f"{MANAGE}/audit_budget.rs::several_pipes_share"),
    ("a local user", "makes the memory of credentials grow", f"{MANAGE}/credentials.rs::the_reader_sees_the_newest_credentials_and_can_write_none"),
    ("a local user", "puts a link, a FIFO or a file in the place of its directory or log", f"{LAUNCH}/failures.rs::homes"),
    ("a local user", "has root's files shown by a link in place of a template",
     "crates/manager/src/site_files.rs::links_of_others_are_not_followed_as_root"),
    ("a local user", "gets the keys of whoever started the manager", f"{LAUNCH}/keys.rs::of_the_manager_stay_there_without_pam"),
    ("a local user", "starts the launcher itself", f"{LAUNCH}/plain.rs::only_a_manager_starts_it"),
    ("somebody who may write a directory on the way", "changes who is mapped to whom",
     "crates/manager/src/mapping/watch.rs::a_file_or_program_that_others_can_change_is_refused"),
    ("a file server that does not answer", "uses up the manager's threads by identity mappings",
     f"{MANAGE}/mapping.rs::evaluations_that_hang_leave_threads_for_others"),
):
    played_elsewhere(who, tries, test)
