//! The messages between engine, node and worker, and how they stand in frames.
//!
//! | kind | from | to | body |
//! |---|---|---|---|
//! | `TASK` | engine, node | node, worker | task id, length of the extras, extras (JSON or nothing), the task message |
//! | `ENDED` | worker, node | node, engine | task id, the result message |
//! | `HELLO` | node | engine | JSON: the node's identity; sent before its interpreter has started |
//! | `REFUSED` | engine | node | text: why it is refused |
//! | `READY` | worker, node | node, engine | JSON: the worker's interpreter; from a node: its first worker is ready |
//! | `SLOTS` | node | engine | how many slots it has now; text: why not all |
//! | `LOST` | node | engine | task id, rank, hint: its worker died |
//! | `ABANDON` | engine | node | task id: kill what runs it |
//! | `RECALL` | engine | node | nothing: give back what no worker has begun |
//! | `UNSTARTED` | node | engine | the ids of the tasks given back |
//! | `HEARTBEAT` | both | both | nothing |

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
const HEARTBEAT: u8 = 7;
const RECALL: u8 = 8;
const UNSTARTED: u8 = 9;
const SLOTS: u8 = 10;
const REFUSED: u8 = 11;

/// A protocol error on the link.
#[derive(Debug, thiserror::Error)]
#[error("malformed frame of kind {0}")]
pub(crate) struct MalformedFrame(u8);

/// Headers of the task that the worker needs; left out when empty.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extras {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) result_serializers: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) function_python: Option<String>,
}

/// The version that both ends of a link must have: frames differ between versions.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The error text if node and engine have different versions.
pub(crate) fn describe_mismatch(node: &str, engine: &str) -> Option<String> {
    (node != engine).then(|| {
        format!(
            "this node is of version {node} and its endpoint runs version {engine}: restart the endpoint, so that both \
             are of the version that is installed"
        )
    })
}

/// A node's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: String,
    /// The run that it was started by, from its configuration.
    #[serde(default)]
    pub(crate) run: String,
    pub(crate) uid: String,
    pub(crate) host: String,
    pub(crate) block: u32,
    pub(crate) slots: u32,
}

/// The part of a hello that is the same in every version.
#[derive(Deserialize)]
struct AnyHello {
    #[serde(default)]
    version: String,
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
    /// A hello of another version, of which only the version is read.
    OtherVersion(String),
    Ready(Interpreter),
    Slots {
        slots: u32,
        why: String,
    },
    Ended {
        task: TaskId,
        result: Bytes,
    },
    WorkerLost {
        task: TaskId,
        rank: u32,
        hint: Option<String>,
    },
    Unstarted(Vec<TaskId>),
    Heartbeat,
}

/// From the engine to a node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToNode {
    /// Forwarded to a worker unchanged.
    Task(TaskId, Frame),
    Abandon(TaskId),
    Recall,
    Refused(String),
    Heartbeat,
}

pub(crate) fn heartbeat() -> Frame {
    Frame::new(HEARTBEAT, &[])
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

/// What a node without workers says; of the others' first worker it is forwarded.
#[cfg(any(test, feature = "simulation"))]
pub(crate) fn ready(interpreter: &Interpreter) -> Frame {
    let json = serde_json::to_vec(interpreter).expect("a struct of strings");
    Frame::new(READY, &[&json])
}

pub(crate) fn refused(why: &str) -> Frame {
    Frame::new(REFUSED, &[why.as_bytes()])
}

pub(crate) fn slots(slots: u32, why: &str) -> Frame {
    Frame::new(SLOTS, &[&slots.to_be_bytes(), why.as_bytes()])
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

/// The frame by which a worker answers.
#[cfg(any(test, feature = "simulation"))]
pub(crate) fn ended(id: TaskId, result: &[u8]) -> Frame {
    Frame::new(ENDED, &[id.as_uuid().as_bytes(), result])
}

/// The task an `ENDED` frame is about.
pub(crate) fn ended_task(frame: &Frame) -> Result<TaskId, MalformedFrame> {
    take_id(&mut frame.body(), ENDED)
}

fn take_id(body: &mut Bytes, kind: u8) -> Result<TaskId, MalformedFrame> {
    let id = body.first_chunk::<16>().map(|bytes| TaskId::from_uuid(Uuid::from_bytes(*bytes)));
    let id = id.ok_or(MalformedFrame(kind))?;
    body.advance(16);
    Ok(id)
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

impl ToEngine {
    pub(crate) fn read(frame: &Frame) -> Result<Self, MalformedFrame> {
        let (kind, mut body) = (frame.kind(), frame.body());
        Ok(match kind {
            HELLO => {
                let any: AnyHello = serde_json::from_slice(&body).map_err(|_| MalformedFrame(kind))?;
                if any.version != VERSION {
                    return Ok(Self::OtherVersion(any.version));
                }
                Self::Hello(serde_json::from_slice(&body).map_err(|_| MalformedFrame(kind))?)
            }
            READY => Self::Ready(read_interpreter(frame)?),
            SLOTS => {
                let slots = body.try_get_u32().map_err(|_| MalformedFrame(kind))?;
                Self::Slots { slots, why: text(&body) }
            }
            ENDED => Self::Ended { task: take_id(&mut body, kind)?, result: body },
            LOST => {
                let task = take_id(&mut body, kind)?;
                let rank = body.try_get_u32().map_err(|_| MalformedFrame(kind))?;
                let hint = text(&body);
                Self::WorkerLost { task, rank, hint: Some(hint).filter(|hint| !hint.is_empty()) }
            }
            UNSTARTED => {
                let (ids, []) = body.as_chunks::<16>() else { return Err(MalformedFrame(kind)) };
                Self::Unstarted(ids.iter().map(|id| TaskId::from_uuid(Uuid::from_bytes(*id))).collect())
            }
            HEARTBEAT => Self::Heartbeat,
            _ => return Err(MalformedFrame(kind)),
        })
    }
}

impl ToNode {
    pub(crate) fn read(frame: Frame) -> Result<Self, MalformedFrame> {
        let kind = frame.kind();
        Ok(match kind {
            TASK => Self::Task(take_id(&mut frame.body(), kind)?, frame),
            ABANDON => Self::Abandon(take_id(&mut frame.body(), kind)?),
            RECALL => Self::Recall,
            REFUSED => Self::Refused(text(&frame.body())),
            HEARTBEAT => Self::Heartbeat,
            _ => return Err(MalformedFrame(kind)),
        })
    }
}

/// Reads the body of a `READY` frame.
pub(crate) fn read_interpreter(frame: &Frame) -> Result<Interpreter, MalformedFrame> {
    serde_json::from_slice(&frame.body()).map_err(|_| MalformedFrame(frame.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let id = TaskId::from_uuid(Uuid::from_u128(7));
        let hello_said = Hello {
            version: VERSION.into(),
            run: "run".into(),
            uid: "0123456789ab".into(),
            host: "vm".into(),
            block: 3,
            slots: 2,
        };
        let other = Frame::new(HELLO, &[br#"{"version":"0.0.9","name":"uid"}"#]);
        let python = Interpreter { python: "3.11.7".into(), ..Interpreter::default() };
        let frame = ended(id, b"\x01{}");
        for (frame, said) in [
            (hello(&hello_said), ToEngine::Hello(hello_said.clone())),
            (other, ToEngine::OtherVersion("0.0.9".into())),
            (ready(&python), ToEngine::Ready(python)),
            (slots(7, "full"), ToEngine::Slots { slots: 7, why: "full".into() }),
            (frame, ToEngine::Ended { task: id, result: Bytes::from_static(b"\x01{}") }),
            (worker_lost(id, 9, None), ToEngine::WorkerLost { task: id, rank: 9, hint: None }),
            (
                worker_lost(id, 9, Some("é")),
                ToEngine::WorkerLost { task: id, rank: 9, hint: Some("é".into()) },
            ),
            (unstarted(&[id, id]), ToEngine::Unstarted(vec![id, id])),
            (heartbeat(), ToEngine::Heartbeat),
        ] {
            assert_eq!(ToEngine::read(&frame).unwrap(), said);
        }
        let sent = task(id, &Extras { function_python: Some("3.9".into()), ..Extras::default() }, b"body");
        assert_eq!(ToNode::read(sent.clone()).unwrap(), ToNode::Task(id, sent));
        assert_eq!(ToNode::read(recall()).unwrap(), ToNode::Recall);
        assert_eq!(ToNode::read(refused("no")).unwrap(), ToNode::Refused("no".into()));
        assert_eq!(ToNode::read(abandon(id)).unwrap(), ToNode::Abandon(id));
    }

    #[test]
    fn malformed_frames_are_refused() {
        for kind in 0..=12 {
            let frame = Frame::new(kind, &[b"..."]);
            assert!(kind == HEARTBEAT || ToEngine::read(&frame).is_err(), "{kind}");
            assert!([HEARTBEAT, RECALL, REFUSED].contains(&kind) || ToNode::read(frame).is_err(), "{kind}");
        }
    }
}
