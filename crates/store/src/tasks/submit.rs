//! Accepts a submit exactly once, however often the client retries it.

use wire::RequestId;

use super::counters::{self, Counters};
use super::large_submits;
use super::retried_submits::{self, Accepted, KnownToClient, RetryCheck};
use super::submit_request::{Submit, SubmitResult};
use crate::columns::key;
use crate::database::query;
use crate::{Command, Store, StoreError, Tx};

/// A submit, with what has been read for it so far.
#[derive(Clone, Debug)]
pub(crate) struct SubmitAttempt {
    pub(crate) submit: Submit,
    /// Its tasks have been staged.
    pub(crate) staged: bool,
    /// The number of this process, if others use the database.
    pub(crate) process: Option<i64>,
    pub(crate) read: KnownToClient,
}

/// The result of an attempt.
#[derive(Debug)]
pub(crate) enum SubmitStep {
    Done(SubmitResult),
    /// Equal submits must be read before it is tried again; nothing was written.
    Unread(Box<SubmitAttempt>, Vec<RequestId>),
}

impl Command for SubmitAttempt {
    type Output = SubmitStep;

    async fn run(self, tx: &mut Tx) -> Result<SubmitStep, StoreError> {
        let submit = &self.submit;
        // Held until the commit: the numbers of an endpoint's outbox rows grow in the order of commits, equal submits come one
        // after another, and the endpoint is not deleted meanwhile.
        let endpoint = query("SELECT 1 FROM endpoints WHERE id = $1")
            .for_update()
            .bind(key(submit.endpoint.as_uuid()))
            .fetch_optional(&mut *tx)
            .await?;
        match retried_submits::check(
            tx,
            submit.owner,
            &submit.fingerprint,
            &*submit.in_flight,
            self.process,
            &self.read,
        )
        .await?
        {
            RetryCheck::No => {}
            RetryCheck::Accepted(accepted) => return Ok(SubmitStep::Done(SubmitResult::Again(accepted))),
            RetryCheck::OtherBody => return Ok(SubmitStep::Done(SubmitResult::KeyOfAnother)),
            RetryCheck::Unread(requests) => return Ok(SubmitStep::Unread(Box::new(self), requests)),
        }
        if endpoint.is_none() {
            return Ok(SubmitStep::Done(SubmitResult::NoEndpoint));
        }
        let accepted = Accepted {
            request: submit.request,
            group: submit.group,
            endpoint: submit.endpoint,
            tasks: submit.tasks.iter().map(|task| task.id).collect(),
        };
        let (owner, fingerprint) = (submit.owner, &submit.fingerprint);
        if !retried_submits::add_record(tx, owner, fingerprint, &accepted, submit.now, self.process).await? {
            // Another process was faster with this key; what it committed is found by the next try.
            return Err(StoreError::TryAgain);
        }
        if !submit.own_group(tx).await? {
            retried_submits::remove_record(tx, submit.request).await?;
            return Ok(SubmitStep::Done(SubmitResult::GroupOfAnother));
        }
        if self.staged {
            large_submits::accept(tx, submit).await?;
        } else {
            submit.write_tasks(tx).await?;
            let waiting = i64::try_from(submit.tasks.len()).unwrap_or(i64::MAX);
            let change = Counters { waiting, ..Counters::default() };
            counters::count(tx, submit.endpoint, change, Some(submit.now)).await?;
        }
        Ok(SubmitStep::Done(SubmitResult::New(accepted)))
    }
}

impl Store {
    /// Accepts a submit. Equal submits are read outside the writer, and many tasks are written in steps.
    pub async fn submit(&self, submit: Submit) -> Result<SubmitResult, StoreError> {
        let staged = match large_submits::is_large(&submit.tasks) {
            true => Some(self.stage(&submit).await?),
            false => None,
        };
        let (staged_already, process, read) = (staged.is_some(), self.process, KnownToClient::new());
        let mut attempt = SubmitAttempt { submit, staged: staged_already, process, read };
        let done = loop {
            match self.write(attempt).await? {
                SubmitStep::Done(done) => break done,
                SubmitStep::Unread(again, requests) => {
                    attempt = *again;
                    self.read_unanswered(requests, &mut attempt.read).await?;
                }
            }
        };
        if let Some(staged) = staged {
            let exists = staged.release_or_drop().await?;
            if !exists && matches!(done, SubmitResult::New(_)) {
                return Ok(SubmitResult::NoEndpoint);
            }
        }
        if let SubmitResult::Again(accepted) = &done {
            self.release_accepted(accepted.request).await?;
        }
        Ok(done)
    }
}
