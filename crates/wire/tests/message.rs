//! Messages read, written and refused, by the byte.

use wire::message::{self, Life, StatusReport, Task};

fn id(text: &str) -> wire::TaskId {
    text.parse().unwrap()
}

const TASK: &[u8] = b"\x01{\"message_type\":\"task\",\"data\":{\"task_id\":\"11111111-2222-3333-4444-555555555555\",\
\"container_id\":null,\"container\":null,\"task_buffer\":\"41\\nst\\nadd:def add(x, y=1):\\n    return x + y\\n7\\n11\\n[40]11\\n11\\n{\\\"y\\\": 2}\"}}";

#[test]
fn a_task_comes_apart_and_together_again() {
    let task = Task::decode(TASK).unwrap();
    assert_eq!(task.task_id, id("11111111-2222-3333-4444-555555555555"));
    let call = task.task_buffer.to_str();
    let call = wire::buffer::split_task(&call).unwrap();
    assert_eq!(call.args, "11\n[40]");
    assert_eq!(call.kwargs, "11\n{\"y\": 2}");
    assert_eq!(task.encode(), TASK);
    let plain = Task { task_buffer: task.task_buffer.to_str().into_owned().into(), ..task };
    assert_eq!(plain.encode(), TASK);
}

#[test]
fn the_error_names_the_field() {
    let broken = String::from_utf8(TASK.to_vec()).unwrap().replace("11111111-", "1111-");
    let error = message::decode(broken.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "data.task_id: not a UUID");
}

#[test]
fn python_infinities_are_read_as_null() {
    let heartbeat = b"\x01{\"message_type\":\"ep_status_report\",\"data\":{\"endpoint_id\":\
\"11111111-2222-3333-4444-555555555555\",\"global_state\":{\"max\":Infinity,\"min\":-Infinity,\"n\":NaN,\
\"h\":\"Infinity \\\" NaN\",\"heartbeat_period\":5.0},\"task_statuses\":{}}}";
    let report = StatusReport::decode(heartbeat).unwrap();
    assert_eq!(report.life(), Life::Online { period: 5.0 });
    let state = report.global_state.to_object();
    assert!(state["max"].is_null() && state["min"].is_null() && state["n"].is_null());
    assert_eq!(state["h"], "Infinity \" NaN");
}
