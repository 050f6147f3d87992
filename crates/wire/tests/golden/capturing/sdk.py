"""What the SDK's client sends to every compute route, and answers it accepts."""

import inspect
import os

from .known import (
    CLIENT,
    COMPUTE_SCOPE,
    CONTAINER,
    DIFFICULT,
    ENDPOINT,
    FUNCTION,
    GLOBUS_GROUP,
    GROUP,
    IDENTITY,
    OTHER_FUNCTION,
    OTHER_TASK,
    POLICY,
    REQUEST,
    SUBSCRIPTION,
    TASK,
    USER_ENDPOINT,
)
from .recorder import Answers, Recorder, document

PACKAGE = "globus-compute-sdk"

VERSIONS = {"api": "1.50.0", "min_sdk_version": "1.0.0a6", "min_ep_version": "1.0.0a0", "git_sha": "0123abc"}
TOKEN = {
    "access_token": "an-access-token",
    "scope": COMPUTE_SCOPE,
    "expires_in": 172800,
    "token_type": "Bearer",
    "resource_server": "funcx_service",
    "other_tokens": [],
}


def capture(shelf, options):
    recorder = Recorder()
    os.environ.update(GLOBUS_COMPUTE_CLIENT_ID=CLIENT, GLOBUS_COMPUTE_CLIENT_SECRET="a secret")
    recorder.will("POST", "/v2/oauth2/token", TOKEN)
    recorder.will("GET", "/v2/version", VERSIONS)

    import globus_compute_sdk

    def keep(name, heard, answer=None):
        """Keeps the last of what was asked, and what was answered."""
        last = heard[-1]
        if last.body:
            kind = "form" if "form" in last.content_type else "request.json"
            shelf.put(PACKAGE, f"{name}.{kind}", last.body)
        if last.query:
            shelf.put(PACKAGE, f"{name}.query", last.query.encode())
        if answer is not None:
            shelf.put(PACKAGE, f"{name}.answer.json", document(answer))

    with recorder.asking() as heard:
        client = globus_compute_sdk.Client()
        client.version_check()
    token = [asked for asked in heard if asked.path.endswith("/token")]
    keep("token-client-credentials", token, TOKEN)
    keep("version", [asked for asked in heard if asked.path == "/v2/version"], VERSIONS)

    functions(recorder, client, keep)
    submissions(recorder, client, keep)
    tasks(recorder, client, keep)
    endpoints(recorder, client, keep)
    if hasattr(client, "register_container"):
        containers(recorder, client, keep)
    errors(recorder, client, keep)
    recorder.close()


def add(x, y=1):
    """Adds."""
    return x + y


def functions(recorder, client, keep):
    from globus_compute_sdk.serialize import ComputeSerializer, PureSourceTextInspect

    registered = {"function_uuid": FUNCTION, "ha_warning": "Functions of high assurance go away after 3 months."}
    recorder.will("POST", "/v3/functions", registered)
    with recorder.asking() as heard:
        assert client.register_function(add) == FUNCTION
    keep("function-register", heard, registered)
    recorder.will("POST", "/v3/functions", {"function_uuid": FUNCTION})
    client.fx_serializer = ComputeSerializer(strategy_code=PureSourceTextInspect())
    with recorder.asking() as heard:
        client.register_function(add, description=DIFFICULT, public=True)
    keep("function-register-public", heard, {"function_uuid": FUNCTION})
    client.fx_serializer = ComputeSerializer()
    with recorder.asking() as heard:
        client.register_function(add, group=GLOBUS_GROUP)
    keep("function-register-group", heard)
    with recorder.asking() as heard:
        client.register_function(add, ha_endpoint_id=ENDPOINT)
    keep("function-register-ha", heard)
    if hasattr(client, "register_source_code"):
        with recorder.asking() as heard:
            client.register_source_code('def f():\n    return "é"\n', "f")
        keep("function-register-source", heard)

    function = {
        "function_uuid": FUNCTION,
        "function_name": "add",
        "function_code": "41\nst\nadd:def add(x, y=1):\n    return x + y\n",
        "description": "Adds.",
        "metadata": {"python_version": "3.11.7", "sdk_version": "4.19.0"},
    }
    recorder.will("GET", f"/v2/functions/{FUNCTION}", function)
    with recorder.asking() as heard:
        assert client.get_function(FUNCTION) == function
    keep("function", heard, function)
    recorder.will("DELETE", f"/v2/functions/{FUNCTION}", {"result": 302})
    with recorder.asking() as heard:
        client.delete_function(FUNCTION)
    keep("function-delete", heard, {"result": 302})


def submissions(recorder, client, keep):
    answer = {
        "request_id": REQUEST,
        "task_group_id": GROUP,
        "endpoint_id": USER_ENDPOINT,
        "tasks": {FUNCTION: [TASK, OTHER_TASK], OTHER_FUNCTION: [TASK]},
        "ha_warning": "A warning.",
    }
    recorder.will("POST", f"/v3/endpoints/{ENDPOINT}/submit", answer)
    batch = client.create_batch(
        task_group_id=GROUP,
        resource_specification={"num_nodes": 2, "ranks_per_node": 1},
        user_endpoint_config={"worker_init": DIFFICULT, "walltime": "00:30:00", "nodes": [1, {"a": None}]},
        create_websocket_queue=True,
        result_serializers=["globus_compute_sdk.serialize.JSONData"],
    )
    batch.add(FUNCTION, (40,), {"y": 2})
    batch.add(FUNCTION, (DIFFICULT,), {})
    batch.add(OTHER_FUNCTION, (), {})
    with recorder.asking() as heard:
        assert client.batch_run(ENDPOINT, batch)["tasks"] == answer["tasks"]
    keep("submit", heard, answer)

    answer = {"request_id": REQUEST, "task_group_id": GROUP, "endpoint_id": ENDPOINT, "tasks": {FUNCTION: [TASK]}}
    recorder.will("POST", f"/v3/endpoints/{ENDPOINT}/submit", answer)
    with recorder.asking() as heard:
        assert client.run(1, endpoint_id=ENDPOINT, function_id=FUNCTION) == TASK
    keep("submit-one", heard, answer)


def tasks(recorder, client, keep):
    details = {
        "os": "Linux",
        "python_version": "3.11.7",
        "dill_version": "0.3.9",
        "globus_compute_sdk_version": "4.19.0",
        "endpoint_id": ENDPOINT,
        "task_transitions": {"execution-start": 1692742841.84, "execution-end": 1692742846.12},
    }
    success = {
        "task_id": TASK,
        "status": "success",
        "result": "00\ngARLKi4=\n",
        "completion_t": "1677183605.212898",
        "details": details,
    }
    failed = {
        "task_id": OTHER_TASK,
        "status": "failed",
        "exception": "Traceback (most recent call last):\nZeroDivisionError: é\n",
        "completion_t": "1677183605.212898",
    }
    pending = {"task_id": TASK, "status": "waiting-for-ep"}
    unknown = {"task_id": OTHER_TASK, "status": "failed", "reason": "Unknown task id"}

    from globus_compute_sdk.errors import TaskExecutionFailed

    def ask(name, answer):
        task_id = answer["task_id"]
        recorder.will("GET", f"/v2/tasks/{task_id}", answer)
        client._task_status_table.pop(task_id, None)
        with recorder.asking() as heard:
            try:
                said = client.get_task(task_id)
            except TaskExecutionFailed:
                said = "failed"
        keep(name, heard, answer)
        return said

    assert ask("task-pending", pending)["pending"]
    assert ask("task-success", success)["result"] == 42
    assert ask("task-failed", failed) == "failed"
    assert ask("task-unknown", unknown)["reason"] == unknown["reason"]

    client._task_status_table.clear()
    answer = {"response": "batch", "results": {TASK: success, OTHER_TASK: failed}}
    recorder.will("POST", "/v2/batch_status", answer)
    with recorder.asking() as heard:
        results = client.get_batch_result([TASK, OTHER_TASK])
    assert results[TASK]["result"] == 42
    keep("batch-status", heard, answer)

    answer = {
        "taskgroup_id": GROUP,
        "create_websockets_queue": True,
        "tasks": [{"id": TASK, "created_at": "2021-05-05T15:00:00.000000"}, {"id": OTHER_TASK}],
    }
    recorder.will("GET", f"/v2/taskgroup/{GROUP}", answer)
    with recorder.asking() as heard:
        assert client._compute_web_client.v2.get_task_group(GROUP)["taskgroup_id"] == GROUP
    keep("task-group", heard, answer)

    answer = {
        "queue_prefix": f"client.{IDENTITY}.",
        "connection_url": f"amqp://client.{IDENTITY}.1:secret@localhost:5672/%2F",
    }
    recorder.will("GET", "/v2/get_amqp_result_connection_url", answer)
    with recorder.asking() as heard:
        assert client.get_result_amqp_url() == answer
    keep("result-connection", heard, answer)


def endpoints(recorder, client, keep):
    url = f"amqp://ep.{ENDPOINT}.1:secret@localhost:5672/%2F"
    publish = {
        name: {
            "connection_url": url,
            "queue": name,
            "exchange": name,
            "queue_publish_kwargs": {"exchange": name, "routing_key": f"{ENDPOINT}.{name}", "mandatory": True},
        }
        for name in ("results", "heartbeats")
    }
    publish["results"]["queue_publish_kwargs"]["properties"] = {"delivery_mode": 2}
    registration = {
        "endpoint_id": ENDPOINT,
        "task_queue_info": {"connection_url": url, "queue": f"{ENDPOINT}.tasks", "exchange": "tasks"},
        "result_queue_info": publish["results"],
        "heartbeat_queue_info": publish["heartbeats"],
        "command_queue_info": {"connection_url": url, "queue": f"{ENDPOINT}.commands", "exchange": "commands"},
        "warnings": ["This endpoint is of another version."],
    }
    recorder.will("POST", "/v3/endpoints", registration)
    recorder.will("PUT", f"/v3/endpoints/{ENDPOINT}", registration)
    with recorder.asking() as heard:
        client.register_endpoint("plain", None)
    keep("endpoint-register-bare", heard, registration)
    with recorder.asking() as heard:
        client.register_endpoint(
            "everything",
            ENDPOINT,
            metadata={"endpoint_version": "4.19.0", "user_config_schema": None, "a new thing": [1]},
            multi_user=True,
            display_name="",
            allowed_functions=[FUNCTION],
            auth_policy=POLICY,
            subscription_id=SUBSCRIPTION,
            public=False,
            high_assurance=True,
            admins=[IDENTITY],
        )
    keep("endpoint-register-everything", heard)

    listed = [
        {"uuid": ENDPOINT, "name": "plain", "display_name": None, "owner": IDENTITY},
        {"uuid": USER_ENDPOINT, "name": "other", "display_name": "Ein Rechner für alle", "owner": IDENTITY},
    ]
    recorder.will("GET", "/v2/endpoints", listed)
    with recorder.asking() as heard:
        assert len(client.get_endpoints()) == 2
    keep("endpoints", heard, listed)
    if "role" in inspect.signature(client.get_endpoints).parameters:
        with recorder.asking() as heard:
            client.get_endpoints(role="any")
        keep("endpoints-any", heard)

    endpoint = {
        "uuid": ENDPOINT,
        "name": "plain",
        "display_name": None,
        "multi_user": True,
        "public": False,
        "endpoint_config": "display_name: null\n",
        "user_config_template": "engine:\n  type: ThreadPoolEngine\n",
        "user_config_schema": {"type": "object"},
        "description": None,
        "hostname": "host.example.edu",
        "local_user": "alice",
        "ip_address": "127.0.0.1",
        "endpoint_version": "4.19.0",
        "sdk_version": None,
        "subscription_uuid": None,
    }
    recorder.will("GET", f"/v2/endpoints/{ENDPOINT}", endpoint)
    with recorder.asking() as heard:
        assert client.get_endpoint_metadata(ENDPOINT) == endpoint
    keep("endpoint", heard, endpoint)

    status = {"status": "online", "details": {"total_workers": 1, "idle_workers": 1, "heartbeat_period": 30}}
    recorder.will("GET", f"/v2/endpoints/{ENDPOINT}/status", status)
    with recorder.asking() as heard:
        assert client.get_endpoint_status(ENDPOINT) == status
    keep("endpoint-status", heard, status)
    status = {"status": "offline", "details": {}}
    recorder.will("GET", f"/v2/endpoints/{ENDPOINT}/status", status)
    with recorder.asking() as heard:
        assert client.get_endpoint_status(ENDPOINT) == status
    keep("endpoint-status-offline", heard, status)

    locked = {"endpoint_id": ENDPOINT, "lock_expiration_timestamp": "2021-07-01T00:00:00.000000"}
    for version in ("v2", "v3"):
        recorder.will("POST", f"/{version}/endpoints/{ENDPOINT}/lock", locked)
    with recorder.asking() as heard:
        client.stop_endpoint(ENDPOINT)
    keep("endpoint-lock", heard, locked)
    recorder.will("DELETE", f"/v2/endpoints/{ENDPOINT}", {"result": 302})
    with recorder.asking() as heard:
        client.delete_endpoint(ENDPOINT)
    keep("endpoint-delete", heard, {"result": 302})

    allowed = {"endpoint_id": ENDPOINT, "restricted": True, "functions": [FUNCTION]}
    recorder.will("GET", f"/v3/endpoints/{ENDPOINT}/allowed_functions", allowed)
    with recorder.asking() as heard:
        client.get_allowed_functions(ENDPOINT)
    keep("allowed-functions", heard, allowed)


def containers(recorder, client, keep):
    from globus_compute_sdk.sdk.container_spec import ContainerSpec

    recorder.will("POST", "/v2/containers", {"container_id": CONTAINER})
    with recorder.asking() as heard:
        assert client.register_container("/x/y.sif", "singularity", name="y") == CONTAINER
    keep("container-register", heard, {"container_id": CONTAINER})
    container = {
        "container": {"container_uuid": CONTAINER, "name": "y", "type": "singularity", "location": "/x/y.sif"}
    }
    recorder.will("GET", f"/v2/containers/{CONTAINER}/singularity", container)
    with recorder.asking() as heard:
        assert client.get_container(CONTAINER, "singularity") == container["container"]
    keep("container", heard, container)
    recorder.will("POST", "/v2/containers/build", {"container_id": CONTAINER})
    spec = ContainerSpec(name="z", description="two", apt=["git"], pip=["numpy"], conda=[], python_version="3.11")
    with recorder.asking() as heard:
        assert client.build_container(spec) == CONTAINER
    keep("container-build", heard, {"container_id": CONTAINER})
    recorder.will("GET", f"/v2/containers/build/{CONTAINER}", {"status": "ready"})
    with recorder.asking() as heard:
        assert client.get_container_build_status(CONTAINER) == "ready"
    keep("container-build-status", heard, {"status": "ready"})


def errors(recorder, client, keep):
    """Error bodies are ours; what is tested here is that the client reads them as it should."""
    import globus_sdk

    body = {
        "status": "Failed",
        "code": "FUNCTION_NOT_PERMITTED",
        "message": f"Function {FUNCTION} not permitted on endpoint {ENDPOINT}",
        "reason": f"Function {FUNCTION} not permitted on endpoint {ENDPOINT}",
        "http_status_code": 403,
        "error_args": [FUNCTION, ENDPOINT],
    }

    def fails(name, body, answers=None):
        path = f"/v2/endpoints/{ENDPOINT}/status"
        recorder.will("GET", path, answers or body, body["http_status_code"])
        with recorder.asking() as heard:
            try:
                client.get_endpoint_status(ENDPOINT)
            except globus_sdk.GlobusAPIError as error:
                assert error.code == body["code"], error.code
                assert body["message"] in str(error), str(error)
                caught = error
            else:
                caught = None
        keep(name, heard, body)
        return caught

    assert fails("error", body).http_status == 403
    gare = {
        "status": "Failed",
        "code": "AUTHENTICATION_POLICY",
        "message": "The endpoint's authentication policy is not satisfied.",
        "reason": "The endpoint's authentication policy is not satisfied.",
        "http_status_code": 403,
        "error_args": [],
        "authorization_parameters": {
            "session_message": "Log in again.",
            "session_required_identities": [IDENTITY],
            "session_required_policies": [POLICY],
            "session_required_single_domain": ["example.edu"],
            "session_required_mfa": True,
            "prompt": "login",
        },
    }
    from globus_sdk import gare as gares

    caught = fails("error-gare", gare)
    assert gares.is_gare(caught), caught
    parameters = gares.to_gare(caught).authorization_parameters
    assert parameters.session_required_policies == [POLICY] and parameters.session_required_mfa

    scoped = {**gare, "authorization_parameters": {"required_scopes": [COMPUTE_SCOPE, "openid"]}}
    recorder.will("POST", "/v2/oauth2/token", {**TOKEN, "scope": f"{COMPUTE_SCOPE} openid"})
    answers = Answers([(403, scoped), (200, {"status": "online", "details": {}})])
    recorder.will("GET", f"/v2/endpoints/{ENDPOINT}/status", answers)
    client.get_endpoint_status(ENDPOINT)
    assert len(answers) == 1, "the client did not try again"
    keep("error-gare-scopes", recorder.asked[-1:], scoped)

