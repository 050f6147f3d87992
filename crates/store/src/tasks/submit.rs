//! Accepting a submit: once, however often it comes.

use wire::RequestId;

use super::counters::{self, Counters};
use super::large_submits;
use super::retried_submits::{self, Accepted, Known, Read};
use super::submit_request::{Submission, Submit};
use crate::columns::key;
use crate::{Command, Store, StoreError, Tx};

/// A submit, and what has been read for it so far.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) submit: Submit,
    /// Its tasks have been staged.
    pub(crate) staged: bool,
    pub(crate) read: Read,
}

/// What became of an attempt.
#[derive(Debug)]
pub(crate) enum Attempted {
    Done(Submission),
    /// What equal submits came to has to be read before it is tried again; nothing was written.
    Unread(Box<Attempt>, Vec<RequestId>),
}

impl Command for Attempt {
    type Output = Attempted;

    async fn run(self, tx: &mut Tx) -> Result<Attempted, StoreError> {
        let submit = &self.submit;
        match retried_submits::look(tx, submit.owner, &submit.fingerprint, &*submit.in_flight, &self.read)
            .await?
        {
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
        retried_submits::remember(tx, submit.owner, &submit.fingerprint, &accepted, submit.now).await?;
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
