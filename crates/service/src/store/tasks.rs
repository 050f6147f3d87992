//! Tasks, the outbox towards endpoints (`assignments`), results, and the outbox towards clients (`deliveries`).
//!
//! The outboxes are the truth of the queues: what lies in them has not been acknowledged by the other side, and their
//! rows are written in the transaction of the work they announce.

use std::collections::{HashMap, HashSet};

use futures_util::TryStreamExt;
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use wire::message::TaskState;
use wire::{EndpointId, FunctionId, IdentityId, TaskGroupId, TaskId};

use super::row::{id, instant, json, key, text, time};
use super::{Command, Store, StoreError, Tx};
use crate::task::{Event, Outcome, Place, State};

/// Rows per statement: keeps the number of bound values below what either database allows.
const ROWS: usize = 1000;

/// A task as submitted.
#[derive(Clone, Debug)]
pub struct NewTask {
    pub id: TaskId,
    pub function: FunctionId,
    /// The packed arguments, as a JSON string.
    pub payload: String,
}

/// Adds tasks, their outbox rows, and their group if it is new; all or nothing.
#[derive(Debug)]
pub struct Submit {
    pub group: TaskGroupId,
    pub owner: IdentityId,
    /// Deliver the group's results to its queue from now on.
    pub queue: bool,
    pub endpoint: EndpointId,
    pub resource_specification: String,
    pub result_serializers: Vec<String>,
    pub tasks: Vec<NewTask>,
    pub now: Timestamp,
}

impl Command for Submit {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO task_groups (id, owner_id, queue, created_us) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id) DO UPDATE SET queue = (task_groups.queue OR excluded.queue)",
        )
        .bind(key(self.group.as_uuid()))
        .bind(key(self.owner.as_uuid()))
        .bind(self.queue)
        .bind(self.now.as_microsecond())
        .execute(&mut *tx)
        .await?;
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
                "INSERT INTO assignments (task_id, endpoint_id, function_id, payload, \
                 resource_specification_json, result_serializers_json) ",
            )
            .push_values(tasks, |mut row, task| {
                row.push_bind(key(task.id.as_uuid()))
                    .push_bind(key(self.endpoint.as_uuid()))
                    .push_bind(key(task.function.as_uuid()))
                    .push_bind(&task.payload)
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

/// The endpoint has acknowledged these outbox rows: they are its business now and are never sent again.
#[derive(Debug)]
pub struct Acknowledge {
    pub seqs: Vec<i64>,
    /// The number of the credential it holds.
    pub credential: i64,
}

impl Command for Acknowledge {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let taken = stored(&State::Open { place: Place::Taken, progress: None });
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
            rows.build().execute(&mut *tx).await?;
        }
        Ok(())
    }
}

/// What an endpoint says of its open tasks.
#[derive(Debug)]
pub struct Progress {
    pub endpoint: EndpointId,
    pub states: Vec<(TaskId, TaskState)>,
}

impl Command for Progress {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let known = standings(tx, self.states.iter().map(|(task, _)| *task)).await?;
        for (task, progress) in self.states {
            let Some(standing) = known.get(&task).filter(|standing| standing.endpoint == self.endpoint)
            else {
                continue;
            };
            if standing.state.clone().apply(Event::Reported(progress)).is_ok() {
                sqlx::query("UPDATE tasks SET progress_json = $2 WHERE id = $1")
                    .bind(key(task.as_uuid()))
                    .bind(text(&progress)?)
                    .execute(&mut *tx)
                    .await?;
            }
        }
        Ok(())
    }
}

/// A result as it arrived.
#[derive(Clone, Debug)]
pub struct ReportedResult {
    pub task: TaskId,
    /// The endpoint that published it, by its routing key.
    pub endpoint: EndpointId,
    pub outcome: Outcome,
    /// The whole message.
    pub message: Vec<u8>,
}

/// What became of a reported result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It ended its task. `deliver` names the group whose queue has a new message, and whose group it is.
    New { deliver: Option<(IdentityId, TaskGroupId)> },
    /// The task had ended before.
    Late,
    /// No such task was sent to that endpoint.
    Refused,
}

/// Ends tasks by their results, with the messages for their groups' queues. Answers in the order of the results.
#[derive(Debug)]
pub struct RecordResults {
    pub results: Vec<ReportedResult>,
    pub now: Timestamp,
}

impl Command for RecordResults {
    type Output = Vec<Recorded>;

    async fn run(self, tx: &mut Tx) -> Result<Vec<Recorded>, StoreError> {
        let known = standings(tx, self.results.iter().map(|result| result.task)).await?;
        let mut ended = HashSet::new();
        let mut fresh = Vec::with_capacity(self.results.len());
        let mut answers = Vec::with_capacity(self.results.len());
        for result in self.results {
            let standing = known.get(&result.task).filter(|standing| standing.endpoint == result.endpoint);
            let Some(standing) = standing else {
                answers.push(Recorded::Refused);
                continue;
            };
            let event = Event::Result { outcome: result.outcome, at: self.now };
            if ended.contains(&result.task) || standing.state.clone().apply(event).is_err() {
                answers.push(Recorded::Late);
                continue;
            }
            ended.insert(result.task);
            answers
                .push(Recorded::New { deliver: standing.queue.then_some((standing.owner, standing.group)) });
            fresh.push((result, standing));
        }
        for fresh in fresh.chunks(ROWS) {
            record(tx, fresh, self.now).await?;
        }
        Ok(answers)
    }
}

async fn record(
    tx: &mut Tx,
    fresh: &[(ReportedResult, &Standing)],
    now: Timestamp,
) -> Result<(), StoreError> {
    QueryBuilder::<Sqlite>::new("INSERT INTO results (task_id, message) ")
        .push_values(fresh, |mut row, (result, _)| {
            row.push_bind(key(result.task.as_uuid())).push_bind(&result.message[..]);
        })
        .build()
        .execute(&mut *tx)
        .await?;
    for outcome in [Outcome::Succeeded, Outcome::Failed] {
        let tasks: Vec<_> = fresh.iter().filter(|(result, _)| result.outcome == outcome).collect();
        if !tasks.is_empty() {
            let mut update = QueryBuilder::<Sqlite>::new("UPDATE tasks SET progress_json = NULL, state = ");
            update.push_bind(stored(&State::Ended { outcome, at: now }));
            update.push(", ended_us = ").push_bind(now.as_microsecond()).push(" WHERE id IN ");
            among(&mut update, tasks.iter().map(|(result, _)| key(result.task.as_uuid())));
            update.build().execute(&mut *tx).await?;
        }
    }
    let mut done = QueryBuilder::<Sqlite>::new("DELETE FROM assignments WHERE task_id IN ");
    among(&mut done, fresh.iter().map(|(result, _)| key(result.task.as_uuid())));
    done.build().execute(&mut *tx).await?;
    let deliver: Vec<_> = fresh.iter().filter(|(_, standing)| standing.queue).collect();
    if !deliver.is_empty() {
        QueryBuilder::<Sqlite>::new("INSERT INTO deliveries (group_id, task_id) ")
            .push_values(deliver, |mut row, (result, standing)| {
                row.push_bind(key(standing.group.as_uuid())).push_bind(key(result.task.as_uuid()));
            })
            .build()
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// The client has acknowledged these outbox rows of its group.
#[derive(Debug)]
pub struct Delivered {
    pub group: TaskGroupId,
    pub seqs: Vec<i64>,
}

impl Command for Delivered {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        for seqs in self.seqs.chunks(ROWS) {
            let mut rows = QueryBuilder::<Sqlite>::new("DELETE FROM deliveries WHERE group_id = ");
            rows.push_bind(key(self.group.as_uuid())).push(" AND seq IN ");
            among(&mut rows, seqs.iter().copied());
            rows.build().execute(&mut *tx).await?;
        }
        Ok(())
    }
}

/// What must be known of a task to change it.
struct Standing {
    endpoint: EndpointId,
    group: TaskGroupId,
    owner: IdentityId,
    queue: bool,
    state: State,
}

async fn standings(
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

/// An outbox row towards a client.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub seq: i64,
    pub ended: Timestamp,
    pub message: Vec<u8>,
}

/// The rows that were read, in order.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// There may be more after these.
    pub more: bool,
}

/// A task as its owner may see it.
#[derive(Clone, Debug)]
pub struct TaskRow {
    pub id: TaskId,
    pub owner: IdentityId,
    pub endpoint: EndpointId,
    pub state: State,
    /// The whole message that ended it.
    pub result: Option<Vec<u8>>,
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
            "SELECT seq, task_id, function_id, payload, resource_specification_json, result_serializers_json \
             FROM assignments WHERE endpoint_id = $1 AND credential IS NULL AND seq > $2 ORDER BY seq LIMIT $3",
        )
        .bind(key(endpoint.as_uuid()))
        .bind(after)
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .fetch(&self.readers);
        let mut waiting = Vec::new();
        let mut held = 0;
        while let Some(row) = rows.try_next().await? {
            let payload: String = row.try_get("payload")?;
            held += payload.len();
            waiting.push(Assignment {
                seq: row.try_get("seq")?,
                task: TaskId::from_uuid(id(&row, "task_id")?),
                function: FunctionId::from_uuid(id(&row, "function_id")?),
                payload,
                resource_specification: row.try_get("resource_specification_json")?,
                result_serializers: json(row.try_get("result_serializers_json")?, "result_serializers_json")?,
            });
            if held >= bytes {
                break;
            }
        }
        let more = waiting.len() >= count || held >= bytes;
        Ok(Page { rows: waiting, more })
    }

    /// The first of the outbox rows after `after` of `owner`'s `group`, bounded like [`Store::waiting`]. Another's group
    /// has none.
    pub async fn undelivered(
        &self,
        owner: IdentityId,
        group: TaskGroupId,
        after: i64,
        count: usize,
        bytes: usize,
    ) -> Result<Page<Delivery>, StoreError> {
        let mut rows = sqlx::query(
            "SELECT d.seq, t.ended_us, r.message FROM deliveries d JOIN results r ON r.task_id = d.task_id \
             JOIN tasks t ON t.id = d.task_id JOIN task_groups g ON g.id = d.group_id \
             WHERE d.group_id = $1 AND d.seq > $2 AND g.owner_id = $4 ORDER BY d.seq LIMIT $3",
        )
        .bind(key(group.as_uuid()))
        .bind(after)
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .bind(key(owner.as_uuid()))
        .fetch(&self.readers);
        let mut undelivered = Vec::new();
        let mut held = 0;
        while let Some(row) = rows.try_next().await? {
            let message: Vec<u8> = row.try_get("message")?;
            held += message.len();
            undelivered.push(Delivery { seq: row.try_get("seq")?, ended: time(&row, "ended_us")?, message });
            if held >= bytes {
                break;
            }
        }
        let more = undelivered.len() >= count || held >= bytes;
        Ok(Page { rows: undelivered, more })
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

    /// The tasks that `endpoint` acknowledged under a credential older than `credential` and has not ended.
    pub async fn taken_before(
        &self,
        endpoint: EndpointId,
        credential: i64,
    ) -> Result<Vec<TaskId>, StoreError> {
        let rows = sqlx::query(
            "SELECT task_id FROM assignments \
             WHERE endpoint_id = $1 AND credential IS NOT NULL AND credential < $2 ORDER BY seq",
        )
        .bind(key(endpoint.as_uuid()))
        .bind(credential)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok(TaskId::from_uuid(id(row, "task_id")?))).collect()
    }

    /// Those of `tasks` that exist.
    pub async fn tasks(&self, tasks: &[TaskId]) -> Result<Vec<TaskRow>, StoreError> {
        let mut found = Vec::with_capacity(tasks.len());
        for tasks in tasks.chunks(ROWS) {
            let mut select = QueryBuilder::<Sqlite>::new(
                "SELECT t.id, t.endpoint_id, t.state, t.progress_json, t.ended_us, g.owner_id, r.message \
                 FROM tasks t JOIN task_groups g ON g.id = t.group_id \
                 LEFT JOIN results r ON r.task_id = t.id WHERE t.id IN ",
            );
            among(&mut select, tasks.iter().map(|task| key(task.as_uuid())));
            for row in select.build().fetch_all(&self.readers).await? {
                found.push(TaskRow {
                    id: TaskId::from_uuid(id(&row, "id")?),
                    owner: IdentityId::from_uuid(id(&row, "owner_id")?),
                    endpoint: EndpointId::from_uuid(id(&row, "endpoint_id")?),
                    state: state_of(&row)?,
                    result: row.try_get("message")?,
                });
            }
        }
        Ok(found)
    }
}

/// Pushes `($1, $2, ...)`.
fn among<T>(query: &mut QueryBuilder<Sqlite>, values: impl Iterator<Item = T>)
where
    T: for<'q> sqlx::Encode<'q, Sqlite> + sqlx::Type<Sqlite> + Send,
{
    query.push("(");
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value);
    }
    query.push(")");
}

/// The number in the column `state`. Released numbers never change their meaning.
fn stored(state: &State) -> i64 {
    match state {
        State::Open { place: Place::Waiting, .. } => 0,
        State::Open { place: Place::Taken, .. } => 1,
        State::Ended { outcome: Outcome::Succeeded, .. } => 2,
        State::Ended { outcome: Outcome::Failed, .. } => 3,
    }
}

fn state_of(row: &SqliteRow) -> Result<State, StoreError> {
    let open = |place| -> Result<State, StoreError> {
        let progress: Option<&str> = row.try_get("progress_json")?;
        let progress = progress.map(|text| json(text, "progress_json")).transpose()?;
        Ok(State::Open { place, progress })
    };
    let ended = |outcome| -> Result<State, StoreError> {
        let at: i64 = row.try_get("ended_us")?;
        Ok(State::Ended { outcome, at: instant(at, "ended_us")? })
    };
    match row.try_get::<i64, _>("state")? {
        0 => open(Place::Waiting),
        1 => open(Place::Taken),
        2 => ended(Outcome::Succeeded),
        3 => ended(Outcome::Failed),
        _ => Err(StoreError::Corrupt("state")),
    }
}
