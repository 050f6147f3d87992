"""Every example runs as its first lines say, with either release of the SDK."""

import json
import re
import subprocess

import environments
import pytest
from testbed import ROOT

EXAMPLES = ROOT / "examples"
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@pytest.fixture(scope="module")
def example(service, endpoint, release):
    """Runs one, and returns what it printed."""
    python = environments.python(f"sdk-{release}")

    def run(name, *arguments, identity=None):
        done = subprocess.run(
            [python, EXAMPLES / name, *arguments],
            env=service.client_environment(python, identity) | {"FARCALL_ENDPOINT_ID": endpoint.id},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_hello(example):
    assert re.fullmatch(r"Hello world, from Python 3\.11\.\d+ on \S+\n", example("hello.py"))


def test_many_tasks(example):
    bar, pi = example("many_tasks.py").splitlines()[-2:]
    assert bar.endswith("200/200")
    assert 3.1 < float(pi.split()[-1]) < 3.2


def test_shell_command(example):
    command, *counts, status = example("shell_command.py").splitlines()
    assert "to be or not to be" in command
    assert [count.split() for count in counts] == [["2", "be"], ["1", "not"], ["1", "or"], ["2", "to"]]
    assert status == "exit status 0"


def test_error(example):
    printed = example("error.py")
    assert printed.startswith("TaskExecutionFailed\n")
    assert "in mean" in printed and "ZeroDivisionError: division by zero" in printed


def test_reload(example):
    group = example("reload.py").strip()
    assert re.fullmatch(UUID, group)
    assert json.loads(example("reload.py", group)) == [0, 1, 4, 9]
    assert json.loads(example("reload.py", group)) == [0, 1, 4, 9], "as often as one likes"


def test_shared_function(example, service):
    function = example("shared_function.py", identity=service.add_client("colleague")).strip()
    assert re.fullmatch(UUID, function)
    assert example("shared_function.py", function) == "212.0\n"


def test_notebook(service, endpoint, tmp_path):
    python = environments.make("notebook")
    execute = "import nbformat, nbclient, sys; book = nbformat.read(sys.argv[1], 4); nbclient.NotebookClient(book, timeout=60).execute(); print(nbformat.writes(book))"
    done = subprocess.run(
        [python, "-c", execute, EXAMPLES / "notebook.ipynb"],
        env=service.client_environment(python) | {"FARCALL_ENDPOINT_ID": endpoint.id, "IPYTHONDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = [cell["outputs"] for cell in json.loads(done.stdout)["cells"] if cell["cell_type"] == "code"]
    values = ["".join(output["data"]["text/plain"]) for cell in outputs for output in cell if "data" in output]
    assert values == ["[0.0, 0.707, 1.0, 0.707, 0.0, -0.707, -1.0, -0.707]", "1.0"]


def test_every_example_is_listed_and_tested():
    names = {path.name for path in EXAMPLES.iterdir()} - {"README.md"}
    assert names == set(re.findall(r"^\| `([^`]+)`", (EXAMPLES / "README.md").read_text(), re.MULTILINE))
    tests = open(__file__).read()
    assert not [name for name in names if f'"{name}"' not in tests]
