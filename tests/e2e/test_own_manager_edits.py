"""What an administrator edits while our manager runs, and what hangs: the next start sees the edit, user endpoints that run
see nothing of it, and nobody waits for another person's start."""

import json
import re
import subprocess
import tempfile
from pathlib import Path

import local_users
import pytest
from processes import alive, until
from sign_in import sign_in
from testbed import binary

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))

# What the contract promises within 5 s is waited for five times as long.
SOON = 25

TEMPLATE = """
    engine:
      type: GlobusComputeEngine
      max_workers_per_node: 1
      provider:
        type: LocalProvider
        init_blocks: 1
        min_blocks: 0
        max_blocks: 1
        worker_init: export FROM_TEMPLATE=first CHOICE={{ choice|default("none") }} ACCOUNT_ID={{ ACCOUNT_ID|default("none") }}
"""
# As `configure` writes it.
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"endpoint_setup": {"type": "string"}, "worker_init": {"type": "string"}},
    "additionalProperties": True,
}
REFUSED = "Request payload failed validation: "

# A module of the name service that never answers. It is asked for names that are not in the file of accounts.
SLOW_NAMES = """
    #include <unistd.h>
    int _nss_hesiod_getpwnam_r(const char *name, void *into, char *buffer, size_t length, int *error) {
        for (;;) pause();
    }
"""
# In a mount namespace of the manager's own.
MOUNTED = """
    mount --bind "$1" /etc/nsswitch.conf && mount --bind "$2" "$3" && shift 3 && exec "$@"
"""


class SlowNames(local_users.OwnManager):
    """A manager on a machine where looking for an account that does not exist takes for ever."""

    def command(self, *arguments):
        place = self.directory / "slow-names"
        if not place.exists():
            place.mkdir(parents=True)
            (place / "nsswitch.conf").write_text("passwd: files hesiod\ngroup: files\nhosts: files dns\n")
            (place / "names.c").write_text(SLOW_NAMES)
            build = ["cc", "-shared", "-fPIC", "-w", "-o", place / "names.so", place / "names.c"]
            subprocess.run(build, check=True)
        module = next(Path("/usr/lib").glob("*/libnss_hesiod.so.2"))
        mounted = ["sh", "-c", MOUNTED, "sh", place / "nsswitch.conf", place / "names.so", module]
        return ["unshare", "--mount", "--propagation", "private", *mounted, *super().command(*arguments)]


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


@pytest.fixture(scope="module")
def manager(shared_testbed, service, users, people):
    mapping = local_users.ids(people, *local_users.NAMES, "ghost")
    manager = SlowNames(shared_testbed, service, mapping, template=TEMPLATE, schema=SCHEMA)
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    return manager


@pytest.fixture(scope="module")
def person(service, manager, people):
    """A person by the name of their client, made once."""
    known = {}

    def of(name):
        if name not in known:
            known[name] = local_users.Person(service.sdk("4.19.0", people[name]), manager)
        return known[name]

    return of


@pytest.fixture
def unedited(manager):
    """Puts back what a test edits, when it is over."""
    names = ("user_config_template.yaml.j2", "user_config_schema.json", "user_environment.yaml")
    before = {name: (manager.home / name).read_bytes() for name in names}
    yield
    for name, content in before.items():
        (manager.home / name).write_bytes(content)


def template(manager, text):
    (manager.home / "user_config_template.yaml.j2").write_text(text)


def test_an_edited_template_holds_for_the_next_user_endpoint(manager, person, unedited):
    """And an option that the schema does not name reaches a task."""
    alicia = person("alicia")
    first = alicia.look(choice="first")
    assert first["environment"]["FROM_TEMPLATE"] == "first" and first["environment"]["CHOICE"] == "first"
    text = (manager.home / "user_config_template.yaml.j2").read_text()
    template(manager, text.replace("FROM_TEMPLATE=first", "FROM_TEMPLATE=edited"))
    assert alicia.look(choice="second")["environment"]["FROM_TEMPLATE"] == "edited"
    assert alicia.look(choice="first") == first


def test_an_edited_schema_judges_the_next_start(manager, person, unedited):
    alicia = person("alicia")
    path = manager.home / "user_config_schema.json"
    kinds = ["apptainer", "docker", "singularity", "podman", "podman-hpc", "custom"]
    properties = SCHEMA["properties"] | {"container_type": {"type": "string", "enum": kinds}}
    path.write_text(json.dumps(SCHEMA | {"properties": properties}))
    refused = f"{REFUSED}Unable to start user endpoint process for alicia [exit code: 78; (ValidationError) "
    assert f"{refused}'dockr' is not one of {kinds}" in alicia.look(container_type="dockr")
    where = "Failed validating 'type' in schema['properties']['endpoint_setup']:"
    assert f"{refused}5 is not of type 'string'\n\n{where}" in alicia.look(endpoint_setup=5)
    path.write_text(json.dumps(SCHEMA | {"additionalProperties": False}))
    assert f"{refused}Additional properties are not allowed ('acount_id' was unexpected)" in alicia.look(acount_id="a")
    path.unlink()
    assert alicia.look(container_type="dockr", endpoint_setup=5, acount_id="a")["environment"]["CHOICE"] == "none"


def test_a_configuration_of_unknown_keys_is_told_in_upstreams_words(manager, person, unedited):
    template(manager, "engine:\n  type: GlobusComputeEngine\nfoo: 1\n")
    expected = (
        f"{REFUSED}Failed to start or unexpected error:\n  (ClickException) 1 validation error for UserEndpointConfigModel\nfoo\n"
        "  extra fields not permitted (type=value_error.extra)"
    )
    assert expected in person("alicia").look(choice="unknown key")


@pytest.fixture
def scripts():
    """A directory of the administrator's that every user can read."""
    with tempfile.TemporaryDirectory(prefix="admin_scripts", dir=local_users.PLACE) as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_the_environment_of_user_endpoints_is_edited(manager, person, users, unedited, scripts):
    alicia = person("alicia")
    path = manager.home / "user_environment.yaml"
    usual = json.loads(path.read_text())["PATH"]

    # A wrapper as the users' page has it, which the PATH leads to.
    wrapper = scripts / "globus-compute-endpoint"
    set_variables = f'export SITE_SPECIFIC_VAR="set by the wrapper"\nexport PATH={usual}'
    wrapper.write_text(f'#!/bin/sh\n{set_variables}\nexec globus-compute-endpoint "$@"\n')
    wrapper.chmod(0o755)
    path.write_text(f"PATH: {scripts}/\nSITE_SPECIFIC_VAR: --additional_flag_for_frobnicator\n")
    seen = alicia.look(choice="wrapped")["environment"]
    assert seen["SITE_SPECIFIC_VAR"] == "set by the wrapper" and str(scripts) not in seen["PATH"]
    assert seen["PATH"].endswith(usual)
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in local_users.processes_of("alicia")]
    assert not [command for command in commands if str(wrapper).encode() in command]

    account = users["alicia"]
    path.write_text(
        f"PATH: {usual}\nSITE_SPECIFIC_VAR: --additional_flag_for_frobnicator\nNUMBER: 5\nHOME: /elsewhere\nUSER: somebody\n"
    )
    seen = alicia.look(choice="site")["environment"]
    assert seen["SITE_SPECIFIC_VAR"] == "--additional_flag_for_frobnicator" and seen["NUMBER"] == "5"
    assert (seen["HOME"], seen["USER"]) == (account.pw_dir, "alicia")

    path.write_text("PATH: /usr/bin:/no/such/directory\n")
    text = alicia.look(choice="no program")
    missing = "[exit code: 88; (FileNotFoundError) [Errno 2] No such file or directory: 'globus-compute-endpoint']"
    assert f"{REFUSED}Unable to start user endpoint process for alicia {missing}" in text
    manager.wait_for_log(r'Path: "/usr/bin:/no/such/directory"')

    path.write_text("PATH: [")
    before = set(manager.children())
    alicia.ask(choice="broken")
    manager.wait_for_log("Using only default environment variables as no variables read from environment file")
    (pid,) = until(lambda: set(manager.children()) - before, "it starts all the same")
    # The workers' Python is that of the default PATH.
    assert alicia.answer()["uid"] == account.pw_uid
    environment = dict(line.split("=", 1) for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in line)
    assert environment["PATH"].startswith("/usr/local/bin:/usr/bin:/bin:/")
    assert (environment["HOME"], environment["USER"]) == (account.pw_dir, "alicia")


# As the users' page has it.
ONLY_ALLOW_MY_INSTITUTION = """\
[
  {
    "DATA_TYPE": "expression_identity_mapping#1.0.0",
    "mappings": [
      {"source": "{email}", "output": "{0}", "match": "(.*)@your_institution.com"},
      {"source": "{email}", "output": "{0}", "match": "(.*)@cs.your_institution.com"}
    ]
  }
]
"""
APPLIED = "Identity mapping configuration change detected; reread and applied: "


def applied(manager, count):
    what = f"edit {count} of the mapping is applied, which takes at most 5 s"
    until(lambda: manager.log_text().count(APPLIED) >= count, what, SOON)


def linked(service):
    """The SDK of the person of the page, who has logged in at a terminal: two linked identities, the second of which maps."""
    password = "correct horse battery staple"
    alicia, roberto = "alicia@legal.your_institution.com", "roberto@your_institution.com"
    more = ("--email", "roberto@cs.your_institution.com", "--organization", "Your Institution, GmbH")
    service.administer("user", "add", alicia, "--name", "Alicia", "--email", alicia, stdin=f"{password}\n")
    service.administer("user", "add", roberto, "--name", "Roberto", *more, stdin=f"{password}\n")
    service.administer("user", "link", roberto, alicia)
    sdk = service.sdk("4.19.0")
    environment = service.person_environment(sdk.python) | {"GLOBUS_COMPUTE_USER_DIR": str(service.testbed.directory / "hers")}
    ours = environment | {"FARCALL_SERVICE_URL": f"http://localhost:{service.http_port}", "COLUMNS": "4000"}
    terminal = service.testbed.terminal([binary("globus-compute-endpoint"), "login"], ours)
    link = terminal.read(r"here:\n-+\n(http\S+)\n-+\n")[1]
    terminal.read("Authorization Code here: ")
    terminal.type(sign_in(link, alicia, password))
    status, screen = terminal.finish()
    assert status == 0, screen
    sdk.variables = environment
    return sdk


def test_an_edited_mapping_holds_and_a_broken_one_does_not(shared_testbed, service, users, people):
    """Edited in place, broken, replaced. User endpoints that run stay whose they are."""
    mapping = local_users.ids(people, "alicia")
    manager = local_users.OwnManager(shared_testbed, service, mapping, name="mapped", template=TEMPLATE)
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    path = manager.home / "mapping.json"
    alicia = local_users.Person(service.sdk("4.19.0", people["alicia"]), manager)
    first = alicia.look(choice="first")
    assert first["uid"] == users["alicia"].pw_uid

    path.write_text(path.read_text().replace('"output": "alicia"', '"output": "roberto"'))
    applied(manager, 1)
    assert alicia.look(choice="edited")["uid"] == users["roberto"].pw_uid
    assert alicia.look(choice="first") == first

    path.write_text("[{")
    refused = r"Unable to update identity configuration -- .*/mapping\.json: \(JSONDecodeError\) .* stays in force"
    manager.wait_for_log(refused, SOON)
    assert alicia.look(choice="broken")["uid"] == users["roberto"].pw_uid

    her = linked(service)
    draft = manager.home / "draft"
    draft.write_text(ONLY_ALLOW_MY_INSTITUTION)
    draft.rename(path)
    applied(manager, 2)
    assert local_users.Person(her, manager).look(choice="linked")["uid"] == users["roberto"].pw_uid
    assert "Identity failed to map to a local user name.  (LookupError)" in alicia.look(choice="another")
    assert alicia.look(choice="first") == first
    assert len(manager.children()) == 4 and manager.log_text().count("Endpoint Manager begins") == 1


@pytest.mark.long
def test_what_hangs_for_one_person_holds_up_nobody_else(manager, person, users, people):
    """A program that maps identities, and the name service. The other words of programs are in the log, too."""
    asked = manager.directory / "asked"
    tory = people["tory"][0]
    hangs = f'case "$(cat)" in *{tory}*) sleep 600 & echo $! > {asked}; wait;; esac; exit 3'
    # As the users' page prints it: nobody who was asked about has this id.
    result = [{"id": "1234567c-cf51-4032-afb8-05986708abcd", "output": "alicia"}]
    stranger = json.dumps({"DATA_TYPE": "identity_mapping_output#1.0.0", "result": result})
    programs = [
        {"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["/bin/sh", "-c", script]}
        for script in (hangs, f"echo '{stranger}'")
    ]
    path = manager.home / "mapping.json"
    path.write_text(json.dumps(programs + json.loads(path.read_text())))
    applied(manager, 1)
    person("harper").look()
    person("tory").ask()
    person("ghost").ask()
    child = int(until(lambda: asked.exists() and asked.read_text().endswith("\n") and asked.read_text(), "the program runs"))
    assert person("harper").look(choice="meanwhile")["uid"] == users["harper"].pw_uid
    assert person("tory").answer()["uid"] == users["tory"].pw_uid
    assert not alive(child)
    text = person("ghost").answer()
    assert f"{REFUSED}Unable to start user endpoint process for ghost [exit code: 70; (TimeoutError) the name service" in text

    log = manager.log_text()
    began = {name: log.index(f"Command process successfully forked for '{name}'") for name in ("harper", "tory")}
    meanwhile = log.index("Command process successfully forked for 'harper'", began["harper"] + 1)
    assert meanwhile < log.index("(TimeoutExpired) /bin/sh did not end within 5 s") < began["tory"]
    assert "exit status: 3" in log and "Invalid ID in result" in log


# The programs of the users' pages, as they stand there but for the id.
FIRST_STEPS = """\
from globus_compute_sdk import Executor

def some_task(*a, **k):
    return 1

mep_site_id = "..."  # as acquired from step 1
with Executor() as ex:
    ex.endpoint_id = mep_site_id
    fut = ex.submit(some_task)
    print("Result:", fut.result())  # Reminder: blocks until result received
"""
TWO_ACCOUNTS = """\
mep_id = "..."
user_endpoint_config = {"ACCOUNT_ID": "ABCD-1234", "PARTITION": "debug"}
with Executor(
    endpoint_id=mep_id,
    user_endpoint_config=user_endpoint_config
) as ex:
    print(ex.submit(some_task, 1).result())
    user_endpoint_config["ACCOUNT_ID"] = "WXYZ-7890"
    ex.user_endpoint_config = user_endpoint_config
    print(ex.submit(some_task, 2).result())
"""
# Three lines of the page are mended: it does not import random, it overwrites `futs`, and it has `list[` for `[`. Its
# function also returns what it sees of its account.
CHANGED_IN_PLACE = """\
from globus_compute_sdk import Executor

def jittery_multiply(a, b):
    import os, random
    return a * b + (1 - random.random()) * (1 + abs(a - b)), os.environ["ACCOUNT_ID"]

mep_site_id = "..."  # as acquired from step 1
with Executor(
    endpoint_id=mep_site_id,
    user_endpoint_config={"account_id": "user_allocation_account_id"},
) as ex:
    futs = [ex.submit(jittery_multiply, 2, 7)]

    ex.user_endpoint_config["account_id"] = "different_allocation_id"
    futs += [ex.submit(jittery_multiply, 13, 11)]

    # Reminder: .result() blocks until result received
    results = [f.result() for f in futs]
    print("Result:", results)
"""
SOME_TASK = """\
from globus_compute_sdk import Executor

def some_task(number):
    import os
    return [number, os.environ["ACCOUNT_ID"], os.getppid()]

"""


@pytest.fixture
def page(shared_testbed, service, manager, people):
    """Starts a program of a page as roberto."""

    def start(name, program):
        path = shared_testbed.directory / f"{name}.py"
        path.write_text(program.replace('"..."', f'"{manager.id}"'))
        sdk = service.sdk("4.19.0", people["roberto"])
        # The SDK warns that its Python and that of the workers are not of the same patch release.
        command = [sdk.python, "-W", "ignore::UserWarning", path]
        return shared_testbed.start(name, command, service.client_environment(sdk.python, people["roberto"]))

    return start


def test_the_programs_of_the_users_pages(manager, users, page, unedited):
    text = (manager.home / "user_config_template.yaml.j2").read_text()
    template(manager, text.replace("{{ ACCOUNT_ID|default", "{{ ACCOUNT_ID|default(account_id)|default"))
    programs = {"first-steps": FIRST_STEPS, "two-accounts": SOME_TASK + TWO_ACCOUNTS, "changed-in-place": CHANGED_IN_PLACE}
    running = {name: page(name, program) for name, program in programs.items()}
    for process in running.values():
        assert process.wait(100) == 0, process.output()
    assert running["first-steps"].output() == "Result: 1\n"
    first, second = (json.loads(line.replace("'", '"')) for line in running["two-accounts"].output().splitlines())
    assert (first[:2], second[:2]) == ([1, "ABCD-1234"], [2, "WXYZ-7890"]) and first[2] != second[2]
    results = r"\((.*), 'user_allocation_account_id'\), \((.*), 'different_allocation_id'\)"
    found = re.fullmatch(rf"Result: \[{results}\]\n", running["changed-in-place"].output())
    assert found, running["changed-in-place"].output()
    assert 14 < float(found[1]) <= 20 and 143 < float(found[2]) <= 146
    assert len([pid for pid in manager.children() if pid in local_users.processes_of("roberto")]) == 5
