"""Messages as globus_compute_common packs them: 0.x escapes whatever is not ASCII, 1.x does not."""

from globus_compute_common.messagepack import pack, unpack
from globus_compute_common.messagepack.message_types import (
    Container,
    ContainerImage,
    EPStatusReport,
    ManagerStatusReport,
    Result,
    ResultErrorDetails,
    Task,
    TaskCancel,
    TaskTransition,
)
from globus_compute_common.tasks.constants import ActorName, TaskState

from .known import CONTAINER, DIFFICULT, ENDPOINT, OTHER_TASK, TASK, uid

BUFFER = '41\nst\nadd:def add(x, y=1):\n    return x + y\n7\n11\n[40]11\n11\n{"y": 2}'
START, END = 1795216684642073291, 1795216684643992465


def capture(shelf, options):
    image = ContainerImage(
        image_type="singularity",
        location="/images/é.sif",
        created_at=1600000000,
        modified_at=1600000001,
        build_status="ready",
        build_stderr=None,
    )
    container = Container(container_id=uid(CONTAINER), name="image", images=[image])
    steps = [
        TaskTransition(timestamp=START, state=TaskState.EXEC_START, actor=ActorName.WORKER),
        TaskTransition(timestamp=END, state=TaskState.EXEC_END, actor=ActorName.WORKER),
    ]
    details = {
        "os": "Linux-6.1-x86_64-with-glibc2.36",
        "dill_version": "0.3.9",
        "python_version": "3.11.7",
        "globus_compute_sdk_version": "4.19.0",
        "endpoint_id": ENDPOINT,
    }
    failure = ResultErrorDetails(
        code="RemoteExecutionError", user_message="An error occurred during the execution of this task"
    )
    all_steps = [
        TaskTransition(timestamp=START + n, state=state, actor=list(ActorName)[n % len(ActorName)])
        for n, state in enumerate(TaskState)
    ]
    messages = {
        "task": Task(task_id=uid(TASK), task_buffer=BUFFER),
        "task-difficult": Task(task_id=uid(TASK), task_buffer=DIFFICULT),
        "task-empty": Task(task_id=uid(TASK), task_buffer=""),
        "task-container": Task(
            task_id=uid(TASK), container_id=uid(CONTAINER), container=container, task_buffer=BUFFER
        ),
        "task-cancel": TaskCancel(task_id=uid(TASK)),
        "result": Result(task_id=uid(TASK), data="00\ngARLKi4=\n", details=details, task_statuses=steps),
        "result-bare": Result(task_id=uid(TASK), data=DIFFICULT),
        "result-failed": Result(
            task_id=uid(TASK),
            data='Traceback (most recent call last):\n  File "<stdin>", line 1, in f\nZeroDivisionError: é\n',
            details=details,
            error_details=failure,
            task_statuses=steps,
        ),
        "result-not-permitted": Result(
            task_id=uid(TASK),
            data="Function f not permitted on endpoint e",
            details={"fid": "f", "eid": "e"},
            error_details=ResultErrorDetails(
                code="FUNCTION_NOT_ALLOWED", user_message="Function f not permitted on endpoint e"
            ),
        ),
        "result-no-steps": Result(task_id=uid(TASK), data="x", error_details=failure, task_statuses=[]),
        "status-report": EPStatusReport(
            endpoint_id=uid(ENDPOINT),
            global_state={
                "heartbeat_period": 30,
                "active": True,
                "managers": 1,
                "max_workers_per_node": float("inf"),
                "mem_per_worker": None,
                "node_info": {"1": [{"worker_count": 1, "idle_duration": 0.0}]},
                "config_raw": DIFFICULT,
            },
            task_statuses={TASK: all_steps, OTHER_TASK: []},
        ),
        "status-report-final": EPStatusReport(
            endpoint_id=uid(ENDPOINT), global_state={"heartbeat_period": 0}, task_statuses={}
        ),
        "status-report-failed-start": EPStatusReport(
            endpoint_id=uid(ENDPOINT),
            global_state={"error": "Unable to start user endpoint process", "heartbeat_period": 3},
            task_statuses={},
        ),
        "manager-status-report": ManagerStatusReport(task_statuses={TASK: steps}),
        "task-transition": steps[0],
        "container": container,
        "containerimage": image,
    }
    try:
        # A traceback may hold the name of a file that is not UTF-8. 1.x refuses to pack it.
        messages["result-lone-surrogate"] = Result(task_id=uid(TASK), data="no such file: 'bad\udcff'")
        pack(messages["result-lone-surrogate"])
    except ValueError:
        del messages["result-lone-surrogate"]
    for name, message in messages.items():
        packed = pack(message)
        unpack(packed)
        shelf.put("globus-compute-common", f"{name}.bin", packed)
