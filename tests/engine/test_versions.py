"""Clients and workers of different Python versions: what runs, and what is refused before it could crash."""

import pytest
import versions
from worker import JSON, Worker


@pytest.mark.parametrize("python", [version for version in versions.WORKERS if version not in versions.without()])
def test_the_table_of_the_conformance_page_is_true(python, tmp_path):
    written = {client: row[python] for client, row in versions.written().items()}
    assert set(written) == {versions.name(client) for client in versions.CLIENTS}
    worker = Worker(versions.interpreters()[python], tmp_path)
    try:
        for client in versions.CLIENTS:
            assert versions.cell(versions.tried(worker, client)) == written[versions.name(client)], client["python"]
    finally:
        worker.close()


def test_byte_code_of_an_unknown_version_never_gives_a_wrong_answer(tmp_path):
    """Without the header nothing is known: it runs, is refused, or ends the worker, which its node tells with a hint."""
    for python, interpreter in versions.interpreters().items():
        for client in versions.CLIENTS:
            worker = Worker(interpreter, tmp_path / f"{python}-{client['python']}-{client['sdk']}")
            try:
                result = worker.run(client["entries"]["DillCode"], result_serializers=[JSON])
                assert result["data"] == "11\n42" or result["error_details"] is not None
                if client["python"] == python and result["data"] != "11\n42":
                    # An old dill writes for 3.10 what it wrote for 3.9, and running that would crash.
                    assert client["dill"] == "0.3.5.1" and "byte code of another Python or of an old dill" in result["data"]
            except (EOFError, OSError):
                assert client["python"] != python
            finally:
                worker.close()
