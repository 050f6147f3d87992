//! What the frames between engine, node and worker say.
//!
//! | kind | from | to | body |
//! |---|---|---|---|
//! | `TASK` | engine, node | node, worker | task id, length of the extras, extras (JSON or nothing), the task message |
//! | `ENDED` | worker, node | node, engine | task id, the result message |
//! | `HELLO` | node | engine | JSON: who it is |
//! | `READY` | worker | node | JSON: which interpreter it is |
//! | `LOST` | node | engine | task id, rank, hint: its worker died |
//! | `ABANDON` | engine | node | task id: kill what runs it |
//! | `RECALL` | engine | node | nothing: give back what no worker has begun |
//! | `UNSTARTED` | node | engine | the ids of the tasks given back |
//! | `BEAT` | both | both | nothing |

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire::TaskId;

use super::frame::Frame;

pub(crate) const TASK: u8 = 1;
pub(crate) const ENDED: u8 = 2;
const HELLO: u8 = 3;
pub(crate) const READY: u8 = 4;
const LOST: u8 = 5;
const ABANDON: u8 = 6;
const BEAT: u8 = 7;
const RECALL: u8 = 8;
const UNSTARTED: u8 = 9;

/// The other side does not speak as it should.
#[derive(Debug, thiserror::Error)]
#[error("malformed frame of kind {0}")]
pub(crate) struct Malformed(u8);

/// What crosses beside the task message, when there is anything to say.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extras {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) result_serializers: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) function_python: Option<String>,
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: String,
    pub(crate) uid: String,
    pub(crate) host: String,
    pub(crate) block: u32,
    pub(crate) slots: u32,
    pub(crate) interpreter: Interpreter,
}

/// Which interpreter a worker runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interpreter {
    pub(crate) executable: String,
    pub(crate) python: String,
    pub(crate) dill: Option<String>,
    pub(crate) sdk: Option<String>,
}

/// From a node to the engine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToEngine {
    Hello(Hello),
    Ended { task: TaskId, result: Bytes },
    WorkerLost { task: TaskId, rank: u32, hint: Option<String> },
    Unstarted(Vec<TaskId>),
    Beat,
}

/// From the engine to a node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToNode {
    /// Forwarded to a worker as it is.
    Task(TaskId, Frame),
    Abandon(TaskId),
    Recall,
    Beat,
}

pub(crate) fn beat() -> Frame {
    Frame::new(BEAT, &[])
}

pub(crate) fn recall() -> Frame {
    Frame::new(RECALL, &[])
}

pub(crate) fn unstarted(tasks: &[TaskId]) -> Frame {
    let ids: Vec<&[u8]> = tasks.iter().map(|task| task.as_uuid().as_bytes().as_slice()).collect();
    Frame::new(UNSTARTED, &ids)
}

pub(crate) fn abandon(task: TaskId) -> Frame {
    Frame::new(ABANDON, &[task.as_uuid().as_bytes()])
}

pub(crate) fn hello(hello: &Hello) -> Frame {
    let json = serde_json::to_vec(hello).expect("a struct of strings and numbers");
    Frame::new(HELLO, &[&json])
}

pub(crate) fn worker_lost(task: TaskId, rank: u32, hint: Option<&str>) -> Frame {
    Frame::new(LOST, &[task.as_uuid().as_bytes(), &rank.to_be_bytes(), hint.unwrap_or_default().as_bytes()])
}

pub(crate) fn task(id: TaskId, extras: &Extras, body: &[u8]) -> Frame {
    let extras = if *extras == Extras::default() {
        Vec::new()
    } else {
        serde_json::to_vec(extras).expect("a struct of strings")
    };
    let length = u32::try_from(extras.len()).expect("headers of a message are bounded far below 4 GiB");
    Frame::new(TASK, &[id.as_uuid().as_bytes(), &length.to_be_bytes(), &extras, body])
}

/// What a worker says.
#[cfg(any(test, feature = "simulation"))]
pub(crate) fn ended(id: TaskId, result: &[u8]) -> Frame {
    Frame::new(ENDED, &[id.as_uuid().as_bytes(), result])
}

/// The task an `ENDED` frame is about.
pub(crate) fn ended_task(frame: &Frame) -> Result<TaskId, Malformed> {
    take_id(&mut frame.body(), ENDED)
}

fn take_id(body: &mut Bytes, kind: u8) -> Result<TaskId, Malformed> {
    let id = body.first_chunk::<16>().map(|bytes| TaskId::from_uuid(Uuid::from_bytes(*bytes)));
    let id = id.ok_or(Malformed(kind))?;
    body.advance(16);
    Ok(id)
}

impl ToEngine {
    pub(crate) fn read(frame: &Frame) -> Result<Self, Malformed> {
        let (kind, mut body) = (frame.kind(), frame.body());
        Ok(match kind {
            HELLO => Self::Hello(serde_json::from_slice(&body).map_err(|_| Malformed(kind))?),
            ENDED => Self::Ended { task: take_id(&mut body, kind)?, result: body },
            LOST => {
                let task = take_id(&mut body, kind)?;
                let rank = body.try_get_u32().map_err(|_| Malformed(kind))?;
                let hint = String::from_utf8_lossy(&body).into_owned();
                Self::WorkerLost { task, rank, hint: Some(hint).filter(|hint| !hint.is_empty()) }
            }
            UNSTARTED => {
                let (ids, []) = body.as_chunks::<16>() else { return Err(Malformed(kind)) };
                Self::Unstarted(ids.iter().map(|id| TaskId::from_uuid(Uuid::from_bytes(*id))).collect())
            }
            BEAT => Self::Beat,
            _ => return Err(Malformed(kind)),
        })
    }
}

impl ToNode {
    pub(crate) fn read(frame: Frame) -> Result<Self, Malformed> {
        let kind = frame.kind();
        Ok(match kind {
            TASK => Self::Task(take_id(&mut frame.body(), kind)?, frame),
            ABANDON => Self::Abandon(take_id(&mut frame.body(), kind)?),
            RECALL => Self::Recall,
            BEAT => Self::Beat,
            _ => return Err(Malformed(kind)),
        })
    }
}

/// Reads what a worker says of itself.
pub(crate) fn interpreter(frame: &Frame) -> Result<Interpreter, Malformed> {
    serde_json::from_slice(&frame.body()).map_err(|_| Malformed(frame.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let id = TaskId::from_uuid(Uuid::from_u128(7));
        let hello_said = Hello {
            version: "1".into(),
            uid: "0123456789ab".into(),
            host: "vm".into(),
            block: 3,
            slots: 2,
            interpreter: Interpreter { python: "3.11.7".into(), ..Interpreter::default() },
        };
        let frame = ended(id, b"\x01{}");
        for (frame, said) in [
            (hello(&hello_said), ToEngine::Hello(hello_said.clone())),
            (frame, ToEngine::Ended { task: id, result: Bytes::from_static(b"\x01{}") }),
            (worker_lost(id, 9, None), ToEngine::WorkerLost { task: id, rank: 9, hint: None }),
            (
                worker_lost(id, 9, Some("é")),
                ToEngine::WorkerLost { task: id, rank: 9, hint: Some("é".into()) },
            ),
            (unstarted(&[id, id]), ToEngine::Unstarted(vec![id, id])),
            (beat(), ToEngine::Beat),
        ] {
            assert_eq!(ToEngine::read(&frame).unwrap(), said);
        }
        let sent = task(id, &Extras { function_python: Some("3.9".into()), ..Extras::default() }, b"body");
        assert_eq!(ToNode::read(sent.clone()).unwrap(), ToNode::Task(id, sent));
        assert_eq!(ToNode::read(recall()).unwrap(), ToNode::Recall);
        assert_eq!(ToNode::read(abandon(id)).unwrap(), ToNode::Abandon(id));
    }

    #[test]
    fn what_is_mumbled_is_refused() {
        for kind in 0..=9 {
            let frame = Frame::new(kind, &[b"short"]);
            assert!(kind == BEAT || ToEngine::read(&frame).is_err(), "{kind}");
            assert!(kind == BEAT || kind == RECALL || ToNode::read(frame).is_err(), "{kind}");
        }
    }
}
