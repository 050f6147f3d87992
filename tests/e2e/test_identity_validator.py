"""`globus-idm-validator`, ours beside upstream's: the same files, the same output and exit status."""

import json
import subprocess

import environments
import pytest
from testbed import binary

ALICIA = {"id": "00000000-0000-4444-8888-111111111111", "username": "alicia@example.com", "email": "a@uni.edu", "status": "used"}
ROBERTO = {"id": "00000000-0000-4444-8888-222222222222", "username": "roberto@example.com", "email": "r@uni.edu", "status": "unused"}
JOSE = {"id": "00000000-0000-4444-8888-333333333333", "username": "josé@example.com", "status": "private"}


def expression(*mappings):
    mappings = [dict(zip(("source", "match", "output"), mapping)) for mapping in mappings]
    return {"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": mappings}


def external(*command):
    return {"DATA_TYPE": "external_identity_mapping#1.0.0", "command": command}


ANSWER = json.dumps({"result": [{"id": ALICIA["id"], "output": "from-program"}]})
MAPPINGS = {
    "example": [external("/bin/false", "--some", "flag"), expression(("{username}", "(.*)@example.com", "{0}"))],
    "program": [external("/bin/sh", "-c", f"cat > /dev/null; echo '{ANSWER}'"), expression(("{email}", "(.*)@uni.edu", "{0}"))],
    "missing property": [expression(("{nickname}", "x", "y")), expression(("{username}", "(.*)@.*", "{0}"))],
    "nobody": [expression(("{username}", "x", "y"))],
    "no mapper": [],
    "unknown mapper": [{"DATA_TYPE": "ldap#1"}],
    "other version": [{"DATA_TYPE": "expression_identity_mapping#2.0.0"}],
    "no type": [{}],
    "bad pattern": [expression(("{username}", "a\\q", "x"))],
    "no list": {"a": 1},
}
IDENTITIES = {
    "one": [ALICIA],
    "three": [ALICIA, ROBERTO, JOSE],
    "as the CLI prints them": {"identities": [ROBERTO, ALICIA]},
    "none": [],
    "not a list": "alicia",
    "object without a list": {"a": 1},
}


@pytest.fixture
def validators(tmp_path):
    """Our program under the tool's name, and upstream's tool."""
    ours = tmp_path / "globus-idm-validator"
    ours.symlink_to(binary("globus-compute-endpoint"))
    return ours, environments.python("sdk-4.19.0").parent / "globus-idm-validator"


def run(program, *words, stdin=""):
    return subprocess.run([program, *map(str, words)], input=stdin, capture_output=True, text=True, timeout=60)


def same(validators, *words, stdin=""):
    ours, upstream = (run(program, *words, stdin=stdin) for program in validators)
    assert (ours.returncode, ours.stdout) == (upstream.returncode, upstream.stdout), (words, ours, upstream)
    return ours


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_it_prints_what_upstreams_prints(validators, tmp_path, mapping):
    config, people = tmp_path / "config.json", tmp_path / "people.json"
    config.write_text(json.dumps(MAPPINGS[mapping]))
    people.write_text(json.dumps(IDENTITIES["three"]))
    for options in ([], ["-f"], ["--all", "--verbose"]):
        same(validators, "-c", config, "-i", people, *options)


@pytest.mark.parametrize("identities", IDENTITIES)
def test_it_reads_identities_as_upstreams_reads_them(validators, tmp_path, identities):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(MAPPINGS["example"]))
    same(validators, "--config", config, stdin=json.dumps(IDENTITIES[identities]))


def test_what_can_not_be_read_exits_with_2_or_1(validators, tmp_path):
    good, people, broken = (tmp_path / name for name in ("good.json", "people.json", "broken.json"))
    good.write_text(json.dumps(MAPPINGS["example"]))
    people.write_text(json.dumps([ALICIA]))
    broken.write_text("[{")
    for words, status, text in [
        (["-c", tmp_path / "nowhere", "-i", people], 2, "Failed to read config: (FileNotFoundError) [Errno 2] "),
        (["-c", tmp_path, "-i", people], 2, "Failed to read config: (IsADirectoryError) [Errno 21] "),
        (["-c", good, "-i", tmp_path / "nowhere"], 2, "Failed to parse identities: (FileNotFoundError) [Errno 2] "),
        (["-c", broken, "-i", people], 1, "Failed to read config: (JSONDecodeError) "),
        (["-c", good, "-i", broken], 1, "Failed to parse identities: (JSONDecodeError) "),
        (["-i", people], 2, ""),
        (["-c", good, "--bogus"], 2, ""),
    ]:
        outcome = same(validators, *words)
        assert outcome.returncode == status and outcome.stderr.lstrip().startswith(text), outcome


def test_a_note_says_where_a_manager_decides_otherwise(validators, tmp_path):
    config, people = tmp_path / "config.json", tmp_path / "people.json"
    config.write_text(json.dumps([expression(("{username}", "(.*)@example.com", "root"))]))
    people.write_text(json.dumps([ALICIA]))
    refused = same(validators, "-c", config, "-i", people)
    assert "a manager refuses this person: the local user would be 'root'" in refused.stderr
    config.write_text(json.dumps([expression(("{username}", "(.*)@example.com", "{0}"))]))
    people.write_text(json.dumps([ROBERTO]))
    unused = same(validators, "-c", config, "-i", people, "-f")
    assert "First found mapped identity: roberto" in unused.stdout and "a manager maps this person to nobody" in unused.stderr
