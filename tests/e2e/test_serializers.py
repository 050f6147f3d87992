"""Every strategy of the stock SDK that a user can choose carries functions, arguments and results."""

import json

import pytest

SCRIPT = """
import sys
from globus_compute_sdk import serialize
from globus_compute_sdk.serialize import ComputeSerializer

def describe(numbers, *, unit="m"):
    import math
    return {"sum": math.fsum(numbers), "unit": unit}

kind, strategy = sys.argv[2:]
serializer = ComputeSerializer(**{f"strategy_{kind}": getattr(serialize, strategy)()})
with executor(sys.argv[1], serializer=serializer) as ex:
    report(ex.submit(describe, [0.5, 1.5], unit="s").result(timeout=60))
"""


@pytest.mark.parametrize(
    "strategy",
    ["DillCode", "DillCodeSource", "DillCodeTextInspect", "CombinedCode", "PureSourceTextInspect", "PureSourceDill"],
)
def test_code(sdk, endpoint, strategy):
    assert sdk.run(SCRIPT, endpoint.id, "code", strategy) == [{"sum": 2.0, "unit": "s"}]


@pytest.mark.parametrize("strategy", ["DillDataBase64", "JSONData"])
def test_data(sdk, endpoint, strategy):
    assert sdk.run(SCRIPT, endpoint.id, "data", strategy) == [{"sum": 2.0, "unit": "s"}]


def test_all_strategies_at_once(sdk, endpoint, release):
    if release == "3.8.0":
        # It has no such combination to choose: its own CombinedCode is in the list above.
        assert "AllCodeStrategies" not in sdk.run("from globus_compute_sdk import serialize; report(dir(serialize))")[0]
        return
    assert sdk.run(SCRIPT, endpoint.id, "code", "AllCodeStrategies") == [{"sum": 2.0, "unit": "s"}]
    assert sdk.run(SCRIPT, endpoint.id, "data", "AllDataStrategies") == [{"sum": 2.0, "unit": "s"}]


def test_the_result_as_the_client_asks(service, sdk, endpoint):
    """The result lies at the service in the form that the client named."""
    [value, task_id] = sdk.run(
        """
        import sys
        from globus_compute_sdk.serialize import JSONData

        def answer():
            return {"answer": [4, 2]}

        with executor(sys.argv[1], result_serializers=[JSONData()]) as ex:
            future = ex.submit(answer)
            report(future.result(timeout=60))
            report(future.task_id)
        """,
        endpoint.id,
    )
    assert value == {"answer": [4, 2]}
    task = service.rest().get(f"/v2/tasks/{task_id}")
    assert task["status"] == "success"
    identifier, payload = task["result"].split("\n", 1)
    assert identifier == "11"
    assert json.loads(payload) == {"answer": [4, 2]}
