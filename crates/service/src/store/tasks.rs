//! Tasks, and the outbox towards endpoints (`assignments`).
//!
//! The outbox is the truth of the queues: what lies in it has not been acknowledged by the other side, and its rows are
//! written in the transaction of the work they announce.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use uuid::Uuid;
use wire::{EndpointId, FunctionId, IdentityId, RequestId, TaskGroupId, TaskId};

use super::counters::{self, Counters};
use super::payloads::{FileId, Kept};
use super::row::{ROWS, among, file, id, instant, json, kept, key, text};
use super::submissions::{self, Accepted, Answering, Fingerprint, Known, Read};
use super::{Command, Store, StoreError, Tx, large_submits};
use crate::task::{Outcome, Place, State};

/// A task as submitted.
#[derive(Clone, Debug)]
pub struct NewTask {
    pub id: TaskId,
    pub function: FunctionId,
    /// The packed arguments, as a JSON string.
    pub payload: Kept,
}

impl NewTask {
    /// What lies in the row.
    pub(super) fn payload_here(&self) -> Option<String> {
        match &self.payload {
            Kept::Here(content) => Some(String::from_utf8_lossy(content).into_owned()),
            Kept::File { .. } => None,
        }
    }
}

/// Adds tasks, their outbox rows, and their group if it is new; all or nothing. Unless the same was accepted before.
#[derive(Debug)]
pub struct Submit {
    pub request: RequestId,
    pub group: TaskGroupId,
    pub owner: IdentityId,
    /// Deliver the group's results to its queue from now on.
    pub queue: bool,
    pub endpoint: EndpointId,
    pub resource_specification: String,
    pub result_serializers: Vec<String>,
    /// In the order of the body.
    pub tasks: Vec<NewTask>,
    pub now: Timestamp,
    pub fingerprint: Fingerprint,
    pub answering: Answering,
}

/// What became of a submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submission {
    New(Accepted),
    /// It had been accepted before; nothing was written, and the files of its payloads belong to nobody.
    Again(Accepted),
    /// Its `Idempotency-Key` was used for another body; nothing was written.
    KeyOfAnother,
    /// The endpoint has been deleted in the meantime; nothing was written.
    NoEndpoint,
    /// The task group is somebody else's; nothing was written.
    GroupOfAnother,
}

/// A submit, and what has been read for it so far.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) submit: Submit,
    /// Its tasks have been staged.
    pub(super) staged: bool,
    pub(super) read: Read,
}

/// What became of an attempt.
#[derive(Debug)]
pub(super) enum Attempted {
    Done(Submission),
    /// What equal submits came to has to be read before it is tried again; nothing was written.
    Unread(Box<Attempt>, Vec<RequestId>),
}

impl Command for Attempt {
    type Output = Attempted;

    async fn run(self, tx: &mut Tx) -> Result<Attempted, StoreError> {
        let submit = &self.submit;
        match submissions::look(tx, submit.owner, &submit.fingerprint, &submit.answering, &self.read).await? {
            Known::No => {}
            Known::Accepted(accepted) => return Ok(Attempted::Done(Submission::Again(accepted))),
            Known::OtherBody => return Ok(Attempted::Done(Submission::KeyOfAnother)),
            Known::Unread(requests) => return Ok(Attempted::Unread(Box::new(self), requests)),
        }
        let endpoint = sqlx::query("SELECT 1 FROM endpoints WHERE id = $1")
            .bind(key(submit.endpoint.as_uuid()))
            .fetch_optional(&mut *tx)
            .await?;
        if endpoint.is_none() {
            return Ok(Attempted::Done(Submission::NoEndpoint));
        }
        let accepted = Accepted {
            request: submit.request,
            group: submit.group,
            endpoint: submit.endpoint,
            tasks: submit.tasks.iter().map(|task| task.id).collect(),
        };
        if !submit.own_group(tx).await? {
            return Ok(Attempted::Done(Submission::GroupOfAnother));
        }
        submissions::remember(tx, submit.owner, &submit.fingerprint, &accepted, submit.now).await?;
        if self.staged {
            large_submits::accept(tx, submit).await?;
        } else {
            submit.write_tasks(tx).await?;
            let waiting = i64::try_from(submit.tasks.len()).unwrap_or(i64::MAX);
            counters::count(tx, submit.endpoint, Counters { waiting, ..Counters::default() }).await?;
        }
        Ok(Attempted::Done(Submission::New(accepted)))
    }
}

impl Store {
    /// Does a submit. What takes as long as equal ones have tasks is read beside the writer; many tasks are written in
    /// steps.
    pub async fn submit(&self, submit: Submit) -> Result<Submission, StoreError> {
        let staged = match large_submits::is_large(&submit.tasks) {
            true => Some(self.stage(&submit).await?),
            false => None,
        };
        let mut attempt = Attempt { submit, staged: staged.is_some(), read: Read::new() };
        let done = loop {
            match self.write(attempt).await? {
                Attempted::Done(done) => break done,
                Attempted::Unread(again, requests) => {
                    attempt = *again;
                    self.read_unanswered(requests, &mut attempt.read).await?;
                }
            }
        };
        if let Some(staged) = staged {
            let exists = staged.settle().await?;
            if !exists && matches!(done, Submission::New(_)) {
                return Ok(Submission::NoEndpoint);
            }
        }
        if let Submission::Again(accepted) = &done {
            self.settle_accepted(accepted.request).await?;
        }
        Ok(done)
    }
}

impl Submit {
    /// Makes the group, unless it is there. Answers whether it is the submitter's.
    async fn own_group(&self, tx: &mut Tx) -> Result<bool, StoreError> {
        let own = sqlx::query(
            "INSERT INTO task_groups (id, owner_id, queue, created_us) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id) DO UPDATE SET queue = (task_groups.queue OR excluded.queue) \
             WHERE task_groups.owner_id = excluded.owner_id",
        )
        .bind(key(self.group.as_uuid()))
        .bind(key(self.owner.as_uuid()))
        .bind(self.queue)
        .bind(self.now.as_microsecond())
        .execute(tx)
        .await?;
        Ok(own.rows_affected() == 1)
    }

    async fn write_tasks(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let serializers = text(&self.result_serializers)?;
        for tasks in self.tasks.chunks(ROWS) {
            QueryBuilder::<Sqlite>::new(
                "INSERT INTO tasks (id, group_id, endpoint_id, function_id, state, submitted_us) ",
            )
            .push_values(tasks, |mut row, task| {
                row.push_bind(key(task.id.as_uuid()))
                    .push_bind(key(self.group.as_uuid()))
                    .push_bind(key(self.endpoint.as_uuid()))
                    .push_bind(key(task.function.as_uuid()))
                    .push_bind(stored(&State::NEW))
                    .push_bind(self.now.as_microsecond());
            })
            .build()
            .execute(&mut *tx)
            .await?;
            QueryBuilder::<Sqlite>::new(
                "INSERT INTO assignments (task_id, endpoint_id, function_id, payload, payload_file, payload_bytes, \
                 resource_specification_json, result_serializers_json) ",
            )
            .push_values(tasks, |mut row, task| {
                row.push_bind(key(task.id.as_uuid()))
                    .push_bind(key(self.endpoint.as_uuid()))
                    .push_bind(key(task.function.as_uuid()))
                    .push_bind(task.payload_here())
                    .push_bind(task.payload.file().map(|file| key(file.as_uuid())))
                    .push_bind(i64::try_from(task.payload.len()).unwrap_or(i64::MAX))
                    .push_bind(&self.resource_specification)
                    .push_bind(&serializers);
            })
            .build()
            .execute(&mut *tx)
            .await?;
        }
        Ok(())
    }
}

/// The endpoint has acknowledged these outbox rows: they are its business now and are never sent again. Answers the
/// files that belong to nobody from now on.
#[derive(Debug)]
pub struct Acknowledge {
    pub endpoint: EndpointId,
    pub seqs: Vec<i64>,
    /// The number of the credential it holds.
    pub credential: i64,
}

impl Command for Acknowledge {
    type Output = Vec<FileId>;

    async fn run(self, tx: &mut Tx) -> Result<Vec<FileId>, StoreError> {
        let taken = stored(&State::Open { place: Place::Taken, progress: None });
        let mut files = Vec::new();
        let mut change = Counters::default();
        for seqs in self.seqs.chunks(ROWS) {
            let mut tasks = QueryBuilder::<Sqlite>::new("UPDATE tasks SET state = ");
            tasks.push_bind(taken).push(" WHERE state = ").push_bind(stored(&State::NEW));
            tasks.push(" AND id IN (SELECT task_id FROM assignments WHERE seq IN ");
            among(&mut tasks, seqs.iter().copied());
            tasks.push(")").build().execute(&mut *tx).await?;
            let mut rows =
                QueryBuilder::<Sqlite>::new("UPDATE assignments SET payload = NULL, credential = ");
            rows.push_bind(self.credential).push(" WHERE credential IS NULL AND seq IN ");
            among(&mut rows, seqs.iter().copied());
            let rows = rows.push(" RETURNING payload_file").build().fetch_all(&mut *tx).await?;
            let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
            change.waiting -= count;
            change.taken += count;
            let before = files.len();
            for row in &rows {
                files.extend(file(row, "payload_file")?);
            }
            if files.len() > before {
                let mut named =
                    QueryBuilder::<Sqlite>::new("UPDATE assignments SET payload_file = NULL WHERE seq IN ");
                among(&mut named, seqs.iter().copied());
                named.build().execute(&mut *tx).await?;
            }
        }
        counters::count(tx, self.endpoint, change).await?;
        Ok(files)
    }
}

/// What must be known of a task to change it.
pub(super) struct Standing {
    pub(super) endpoint: EndpointId,
    pub(super) group: TaskGroupId,
    pub(super) owner: IdentityId,
    pub(super) queue: bool,
    pub(super) state: State,
}

pub(super) async fn standings(
    tx: &mut Tx,
    tasks: impl ExactSizeIterator<Item = TaskId>,
) -> Result<HashMap<TaskId, Standing>, StoreError> {
    let tasks: Vec<_> = tasks.collect();
    let mut known = HashMap::with_capacity(tasks.len());
    for tasks in tasks.chunks(ROWS) {
        let mut select = QueryBuilder::<Sqlite>::new(
            "SELECT t.id, t.endpoint_id, t.group_id, t.state, t.progress_json, t.ended_us, g.owner_id, g.queue \
             FROM tasks t JOIN task_groups g ON g.id = t.group_id WHERE t.id IN ",
        );
        among(&mut select, tasks.iter().map(|task| key(task.as_uuid())));
        for row in select.build().fetch_all(&mut *tx).await? {
            let standing = Standing {
                endpoint: EndpointId::from_uuid(id(&row, "endpoint_id")?),
                group: TaskGroupId::from_uuid(id(&row, "group_id")?),
                owner: IdentityId::from_uuid(id(&row, "owner_id")?),
                queue: row.try_get("queue")?,
                state: state_of(&row)?,
            };
            known.insert(TaskId::from_uuid(id(&row, "id")?), standing);
        }
    }
    Ok(known)
}

/// An outbox row towards an endpoint.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub seq: i64,
    pub task: TaskId,
    pub function: FunctionId,
    /// The packed arguments, as a JSON string.
    pub payload: String,
    pub resource_specification: String,
    pub result_serializers: Vec<String>,
}

/// The row of an assignment that is to be sent, by its task.
pub(super) const ASSIGNMENT: &str = "SELECT 1 FROM assignments WHERE task_id = $1 AND credential IS NULL";

/// The rows that were read, in order.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// There may be more after these.
    pub more: bool,
}

/// A task as its owner may see it, without what came of it.
#[derive(Clone, Debug)]
pub struct TaskRow {
    pub id: TaskId,
    pub owner: IdentityId,
    pub endpoint: EndpointId,
    pub state: State,
    /// The size of the message that ended it; 0 without one.
    pub result_bytes: usize,
}

impl Store {
    /// The first of `endpoint`'s outbox rows after `after` that it has not acknowledged: at most `count` of them, and
    /// no more once their payloads have reached `bytes`.
    pub async fn waiting(
        &self,
        endpoint: EndpointId,
        after: i64,
        count: usize,
        bytes: usize,
    ) -> Result<Page<Assignment>, StoreError> {
        let mut rows = sqlx::query(
            "SELECT seq, task_id, function_id, payload, payload_file, payload_bytes, \
             resource_specification_json, result_serializers_json \
             FROM assignments WHERE endpoint_id = $1 AND credential IS NULL AND seq > $2 ORDER BY seq LIMIT $3",
        )
        .bind(key(endpoint.as_uuid()))
        .bind(after)
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .fetch(&self.readers);
        let mut waiting = Vec::new();
        let mut held = 0;
        while let Some(row) = rows.try_next().await? {
            let payload = kept(&row, "payload", "payload_file", "payload_bytes")?;
            held += payload.len();
            let assignment = Assignment {
                seq: row.try_get("seq")?,
                task: TaskId::from_uuid(id(&row, "task_id")?),
                function: FunctionId::from_uuid(id(&row, "function_id")?),
                payload: String::new(),
                resource_specification: row.try_get("resource_specification_json")?,
                result_serializers: json(row.try_get("result_serializers_json")?, "result_serializers_json")?,
            };
            waiting.push((assignment, payload));
            if held >= bytes {
                break;
            }
        }
        // Files are read once the connection is free for others.
        drop(rows);
        let more = waiting.len() >= count || held >= bytes;
        let mut rows = Vec::with_capacity(waiting.len());
        for (assignment, payload) in waiting {
            let Some(payload) = self.content(payload, ASSIGNMENT, assignment.task).await? else { continue };
            let payload = String::from_utf8(payload).map_err(|_| StoreError::Corrupt("payload"))?;
            rows.push(Assignment { payload, ..assignment });
        }
        Ok(Page { rows, more })
    }

    /// The tasks of these outbox rows towards endpoints.
    pub async fn assigned(&self, seqs: &[i64]) -> Result<Vec<TaskId>, StoreError> {
        let mut tasks = Vec::with_capacity(seqs.len());
        for seqs in seqs.chunks(ROWS) {
            let mut select = QueryBuilder::<Sqlite>::new("SELECT task_id FROM assignments WHERE seq IN ");
            among(&mut select, seqs.iter().copied());
            for row in select.build().fetch_all(&self.readers).await? {
                tasks.push(TaskId::from_uuid(id(&row, "task_id")?));
            }
        }
        Ok(tasks)
    }

    /// Those of `tasks` that exist.
    pub async fn tasks(&self, tasks: &[TaskId]) -> Result<Vec<TaskRow>, StoreError> {
        let mut found = Vec::with_capacity(tasks.len());
        for tasks in tasks.chunks(ROWS) {
            let mut select = QueryBuilder::<Sqlite>::new(
                "SELECT t.id, t.endpoint_id, t.state, t.progress_json, t.ended_us, g.owner_id, \
                 coalesce(r.bytes, 0) AS bytes FROM tasks t JOIN task_groups g ON g.id = t.group_id \
                 LEFT JOIN results r ON r.task_id = t.id WHERE t.id IN ",
            );
            among(&mut select, tasks.iter().map(|task| key(task.as_uuid())));
            for row in select.build().fetch_all(&self.readers).await? {
                found.push(TaskRow {
                    id: TaskId::from_uuid(id(&row, "id")?),
                    owner: IdentityId::from_uuid(id(&row, "owner_id")?),
                    endpoint: EndpointId::from_uuid(id(&row, "endpoint_id")?),
                    state: state_of(&row)?,
                    result_bytes: usize::try_from(row.try_get::<i64, _>("bytes")?)
                        .map_err(|_| StoreError::Corrupt("bytes"))?,
                });
            }
        }
        Ok(found)
    }
}

/// What the ids of tasks that were submitted before `before` are below: they begin with the milliseconds at which
/// they were made.
pub(super) fn submitted_before(before: Timestamp) -> Vec<u8> {
    key(Uuid::from_u128(u128::from(before.as_millisecond().max(0).cast_unsigned()) << 80))
}

/// The number in the column `state`. Released numbers never change their meaning.
pub(super) fn stored(state: &State) -> i64 {
    match state {
        State::Open { place: Place::Waiting, .. } => 0,
        State::Open { place: Place::Taken, .. } => 1,
        State::Ended { outcome: Outcome::Succeeded, .. } => 2,
        State::Ended { outcome: Outcome::Failed, .. } => 3,
        State::Expired { .. } => 4,
    }
}

fn state_of(row: &SqliteRow) -> Result<State, StoreError> {
    let open = |place| -> Result<State, StoreError> {
        let progress: Option<&str> = row.try_get("progress_json")?;
        let progress = progress.map(|text| json(text, "progress_json")).transpose()?;
        Ok(State::Open { place, progress })
    };
    let ended = || -> Result<Timestamp, StoreError> {
        let at: i64 = row.try_get("ended_us")?;
        instant(at, "ended_us")
    };
    match row.try_get::<i64, _>("state")? {
        0 => open(Place::Waiting),
        1 => open(Place::Taken),
        2 => Ok(State::Ended { outcome: Outcome::Succeeded, at: ended()? }),
        3 => Ok(State::Ended { outcome: Outcome::Failed, at: ended()? }),
        4 => Ok(State::Expired { at: ended()? }),
        _ => Err(StoreError::Corrupt("state")),
    }
}
