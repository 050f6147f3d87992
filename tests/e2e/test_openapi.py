"""schemathesis sends the service what its OpenAPI document allows and what it does not: no request may fail inside the
service, and every answer must be one that the document describes."""

import os
import subprocess

import pytest

import environments

# What schemathesis checks. It may well find ways to be accepted: unknown members of bodies are ignored, as clients need.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def ask(service, examples, seed, phases, *options, config=""):
    """Runs schemathesis with so many examples for each operation."""
    program = environments.python("schemathesis").parent / "schemathesis"
    command = [
        program,
        *("run", f"{service.origin()}/openapi.json", "--checks", CHECKS),
        *("--max-examples", examples, "--seed", seed, "--phases", phases),
        # One worker: CPython 3.11 parses source in two threads at a time wrongly now and then ("AST constructor recursion
        # depth mismatch"), and schemathesis parses its own.
        *("--mode", "all", "--workers", 1, "--no-color", "--generation-database", "none"),
        *options,
    ]
    environment = service.testbed.environment(PYTHONHASHSEED=0)
    directory = service.testbed.directory / "schemathesis"
    directory.mkdir(exist_ok=True)
    (directory / "schemathesis.toml").write_text(config)
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=float(os.environ.get("PYTEST_TIMEOUT", 170)) if examples < 100 else 3000,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    return done.stdout


@pytest.fixture(scope="module")
def service(shared_testbed):
    return shared_testbed.service()


def bearer(service):
    return ("--header", f"Authorization: Bearer {service.rest().token()}")


def test_with_a_token(service):
    ask(service, 1, 1, "coverage", *bearer(service))


def test_an_endpoint_that_exists(service):
    body = {"endpoint_name": "asked", "metadata": {}}
    endpoint = service.rest().post("/v3/endpoints", body)["endpoint_id"]
    config = f'[parameters]\n"path.id" = "{endpoint}"\n'
    own = ("--include-path-regex", "^/v[23]/endpoints/", "--exclude-method", "DELETE")
    told = ask(service, 8, 2, "fuzzing", *own, *bearer(service), config=config)
    assert "- GET" not in told, "it found nothing of the endpoint"


@pytest.mark.parametrize("header", [(), ("--header", "Authorization: Bearer wrong")], ids=["none", "wrong"])
def test_without_a_valid_token(service, header):
    ask(service, 1, 3, "fuzzing", *header)


@pytest.mark.long("openapi")
@pytest.mark.timeout(3600)
def test_for_long(service):
    ask(service, 500, 4, "coverage,fuzzing", *bearer(service))
