"""`configure` for managers: the files, their modes and the output are those of the real endpoints 3.8.0 and 4.19.0."""

import json
import os
import subprocess

import environments
import pytest
from testbed import binary

FILES = {
    "config.yaml": 0o600,
    "example_identity_mapping_config.json": 0o600,
    "user_config_schema.json": 0o644,
    "user_config_template.yaml.j2": 0o644,
    "user_environment.yaml": 0o644,
}
POLICY = "2340174a-1a0e-46d8-a958-7c3ddf2c834a"


def configure(program, home, *words, umask=0o022):
    home.mkdir(exist_ok=True)
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "COLUMNS": "200"}
    return subprocess.run(
        [str(program), *words], env=environment, capture_output=True, text=True, timeout=120, umask=umask
    )


def ours(home, *words, umask=0o022):
    return configure(binary("globus-compute-endpoint"), home, *words, umask=umask)


def upstreams(release, home, *words):
    program = environments.make(f"sdk-{release}").parent / "globus-compute-endpoint"
    done = configure(program, home, *words)
    assert done.returncode == 0, done.stderr
    return done


def modes(directory):
    return {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}


def read(text):
    """YAML, as upstream reads it."""
    script = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"
    python = environments.make("sdk-3.8.0")
    return json.loads(subprocess.run([python, "-c", script], input=text, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout)


def settings(directory, home):
    """The configuration, without where it lies."""
    return read((directory / "config.yaml").read_text().replace(str(home), "HOME"))


def unquoted(text):
    """What a template says, without its comments."""
    return [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_manager_as_3_8_makes_it(tmp_path, umask):
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    expected = upstreams("3.8.0", theirs, "configure", "--multi-user", "mep_debug")
    done = ours(mine, "configure", "--multi-user", "mep_debug", umask=umask)
    assert done.stdout.replace(str(mine), str(theirs)) == expected.stdout
    assert (done.returncode, done.stderr) == (0, "")
    made, theirs_made = (home / ".globus_compute" / "mep_debug" for home in (mine, theirs))
    assert modes(made) == FILES == modes(theirs_made)
    assert made.stat().st_mode & 0o777 == 0o711 == theirs_made.stat().st_mode & 0o777
    assert (made / "config.yaml").read_text() == (theirs_made / "config.yaml").read_text().replace(str(theirs), str(mine))
    for name in ("example_identity_mapping_config.json", "user_config_schema.json"):
        assert (made / name).read_text() == (theirs_made / name).read_text()
    name = "user_config_template.yaml.j2"
    assert unquoted((made / name).read_text()) == unquoted((theirs_made / name).read_text())
    assert not unquoted((made / "user_environment.yaml").read_text())


def test_a_manager_as_4_19_makes_it(tmp_path):
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    words = ["configure", "--multi-user", "true", "--contact-email", "root@site.example", "mep"]
    expected = upstreams("4.19.0", theirs, *words)
    done = ours(mine, *words)
    assert done.stdout.replace(str(mine), str(theirs)) == expected.stdout
    made = mine / ".globus_compute" / "mep"
    assert settings(made, mine) == settings(theirs / ".globus_compute" / "mep", theirs)
    # All that users may read they can reach: the release keeps its directory shut.
    assert modes(made) == FILES


def test_a_personal_manager_as_4_19_makes_it(tmp_path):
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    words = ["configure", "--multi-user", "false", "--display-name", "Mine, 2 blocks", "mine"]
    expected = upstreams("4.19.0", theirs, *words)
    done = ours(mine, *words)
    assert done.stdout.replace(str(mine), str(theirs)) == expected.stdout
    made = mine / ".globus_compute" / "mine"
    assert settings(made, mine) == settings(theirs / ".globus_compute" / "mine", theirs)
    assert set(modes(made)) == set(FILES) - {"example_identity_mapping_config.json"}
    assert made.stat().st_mode & 0o777 == 0o700


def test_files_of_ones_own_are_copied(tmp_path):
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    contents = {
        "core": "# Ours\nheartbeat_period: 60\npublic: false\nengine:\n  type: ThreadPoolEngine\n",
        "template": "engine: {type: ThreadPoolEngine}\n",
        "schema": '{"type": "object"}',
        "user-env": "SITE: x\n",
        "id-mapping": "[]",
    }
    words = ["configure", "--multi-user", "true", "--contact-email", "root@site.example", "mep"]
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
        words += [f"--{name}-config", str(tmp_path / name)]
    upstreams("4.19.0", theirs, *words)
    done = ours(mine, *words)
    assert done.returncode == 0, done.stderr
    made, theirs_made = (home / ".globus_compute" / "mep" for home in (mine, theirs))
    assert settings(made, mine) == settings(theirs_made, theirs)
    assert (made / "config.yaml").read_text().count("# Ours") == 1
    copied = set(modes(made)) - {"config.yaml"}
    assert copied == set(modes(theirs_made)) - {"config.yaml"}
    for name in copied:
        assert (made / name).read_text() == (theirs_made / name).read_text(), name


def test_policies_and_high_assurance(tmp_path):
    done = ours(tmp_path, "configure", "my-mep", "--multi-user", "--auth-policy", POLICY)
    assert done.returncode == 0, done.stderr
    made = tmp_path / ".globus_compute"
    assert f"authentication_policy: {POLICY}\n" in (made / "my-mep" / "config.yaml").read_text()
    words = ["--high-assurance", "--auth-policy", POLICY, "--subscription-id", POLICY]
    assert ours(tmp_path, "configure", "ha", "--multi-user", *words).returncode == 0
    ha = read((made / "ha" / "config.yaml").read_text())
    assert ha["high_assurance"] is True
    assert ha["audit_log_path"] == str(made / "ha" / "audit.log")


@pytest.mark.parametrize(
    "words, said",
    [
        (["--multi-user", "../x"], "Invalid endpoint name: "),
        (["--multi-user", "a/b"], "Invalid endpoint name: "),
        (["--multi-user", "a" * 129], "Invalid endpoint name: "),
        (["--multi-user", POLICY], "requires an endpoint name that is not a UUID"),
        (["--multi-user", "true", "x"], "Email must be specified via --contact-email for multi-user endpoints"),
        (
            ["--multi-user", "false", "--id-mapping-config", "/etc/hostname", "x"],
            "--id-mapping-config requires multi user support (hint: --multi-user true)",
        ),
        (
            ["--multi-user", "--auth-policy", POLICY, "--allowed-domains", "*.edu", "x"],
            "Cannot specify an existing auth policy and create a new one at the same time",
        ),
        (
            ["--multi-user", "--high-assurance", "x"],
            "High Assurance(HA) endpoints require both a HA policy and a HA subscription id",
        ),
        (["--multi-user", "--auth-timeout", "60", "x"], "not part of this version yet"),
        (["--multi-user", "--schema-config", "/etc/hostname", "x"], "/etc/hostname: "),
        (["--multi-user", "--template-config", "/nowhere", "x"], "/nowhere: "),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path, words, said):
    done = ours(tmp_path, "configure", *words)
    assert done.returncode in (1, 2) and said in done.stderr, done
    made = tmp_path / ".globus_compute"
    assert not made.exists() or not list(made.iterdir())


def test_an_existing_one_is_left_as_it_is(tmp_path):
    assert ours(tmp_path, "configure", "--multi-user", "mep_debug").returncode == 0
    made = tmp_path / ".globus_compute" / "mep_debug"
    (made / "config.yaml").write_text("# mine\n")
    (made / "user_environment.yaml").unlink()
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    again = ours(tmp_path, "configure", "--multi-user", "mep_debug")
    assert again.returncode == 1
    assert "config dir <mep_debug> already exists" in again.stdout
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before


def test_check_and_render_know_managers(tmp_path):
    ours(tmp_path, "configure", "--multi-user", "mep")
    assert ours(tmp_path, "check", "mep").returncode == 0
    shown = json.loads(ours(tmp_path, "render", "mep").stdout)
    assert shown["multi_user"] is True and shown["max_user_endpoints"] == 1000
    assert shown["pam"] == {"enable": False, "service_name": "globus-compute-endpoint"}
    made = tmp_path / ".globus_compute" / "mep"
    (made / "user_config_schema.json").write_text("{")
    done = ours(tmp_path, "check", "mep")
    assert done.returncode == 78 and "user_config_schema.json" in done.stderr
    (made / "user_config_schema.json").unlink()
    assert ours(tmp_path, "check", "mep").returncode == 0
    if os.geteuid() == 0:
        (made / "example_identity_mapping_config.json").unlink()
        done = ours(tmp_path, "check", "mep")
        assert done.returncode == 72 and "does not exist (type=value_error.path.not_exists; path=" in done.stderr
    # Without the switch, a template makes a manager as in 4.x; without either, the engine is missing.
    (made / "config.yaml").write_text("display_name: x\n")
    assert json.loads(ours(tmp_path, "render", "mep").stdout)["multi_user"] is True
    (made / "user_config_template.yaml.j2").unlink()
    done = ours(tmp_path, "render", "mep")
    assert "engine\n  field required (type=value_error.missing)" in done.stderr


def test_migration(tmp_path):
    """The same split as 4.19.0's; the text stays as it was written."""
    config = (
        "# Mine\ndisplay_name: x\nengine:\n  type: ThreadPoolEngine\n  max_workers: 2 # two\namqp_port: 443\n"
        "allowed_functions: []\nidle_heartbeats_soft: 3\n"
    )
    made = []
    for home in (tmp_path / "theirs", tmp_path / "mine"):
        made.append(home / ".globus_compute" / "ep")
        made[-1].mkdir(parents=True)
        (made[-1] / "config.yaml").write_text(config)
    said = upstreams("4.19.0", tmp_path / "theirs", "migrate-to-template-capable", "ep", "--yes").stderr
    done = ours(tmp_path / "mine", "migrate-to-template-capable", "ep", "--yes")
    sentence = "Endpoint ep successfully migrated to template capable."
    assert sentence in said and sentence in done.stderr
    for name in ("config.yaml", "user_config_template.yaml.j2", "config.yaml.backup"):
        theirs, mine = (read((directory / name).read_text()) for directory in made)
        assert theirs == mine, name
    assert "max_workers: 2 # two" in (made[1] / "user_config_template.yaml.j2").read_text()
    again = ours(tmp_path / "mine", "migrate-to-template-capable", "ep", "--yes")
    assert again.stderr == "Error: Failed to migrate endpoint: Endpoint 'ep' is already template capable.\n"


def test_migration_asks_first(tmp_path):
    ours(tmp_path, "configure", "ep")
    done = ours(tmp_path, "migrate-to-template-capable", "ep")
    question = "> Are you sure you want to migrate endpoint 'ep' to be template capable? This is a one-way operation."
    assert done.returncode == 1 and question in done.stdout and "Aborted!" in done.stderr
