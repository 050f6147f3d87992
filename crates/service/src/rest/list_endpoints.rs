//! `GET /v2/endpoints`: the caller's endpoints; with `role=any` also those that they administer and public ones. An
//! administrator of the service sees all.
//!
//! The list is read and sent in pages: however long it is, one page of it is in memory.

use std::collections::VecDeque;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use futures_util::stream;
use wire::IdentityId;
use wire::rest::endpoint::{Listed, Query as Wanted, Role};
use wire::rest::error::Code;

use super::App;
use super::caller::Caller;
use super::route::{Method, Parameter, Route};
use super::unread_answers::AnswerMemory;
use crate::clock;
use crate::http::failure::Failure;
use store::{ListedEndpoint, VisibleAs};

/// The caller's endpoints are all listed, others until there are so many.
const LISTED: usize = 10_000;
/// Read at a time.
const PAGE: usize = 500;
/// Bytes that one of them takes in an answer, roughly.
const ENTRY: usize = 256;

pub(super) const ROUTE: Route = Route {
    query: &[Parameter {
        name: "role",
        summary: "`owner`: one's own; `any`: those that one may see, too",
        values: &["owner", "any"],
    }],
    refusals: &[Code::RequestMalformed],
    ..Route::new(Method::Get, "/v2/endpoints", "list_endpoints", "ListedEndpoints", "The endpoints one knows")
};

pub(super) async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(wanted) = query.map_err(|error| Failure::new(Code::RequestMalformed, error.body_text()))?;
    let all = [VisibleAs::Owned, VisibleAs::Administered, VisibleAs::Public];
    let reasons = match wanted.role.unwrap_or_default() {
        Role::Owner => &all[..1],
        Role::Any if app.identity.administers(caller, clock::now()).await? => &[VisibleAs::Every][..],
        Role::Any => &all[..],
    };
    let memory = app.unread_answers.take(caller, PAGE * ENTRY)?;
    let list = List { app, caller, memory, reasons: reasons.to_vec().into(), last: None, count: 0 };
    let pieces = stream::try_unfold(list, List::next);
    super::stream::json("[", pieces, "]").await
}

/// The rest of a list.
struct List {
    app: App,
    caller: IdentityId,
    memory: AnswerMemory,
    reasons: VecDeque<VisibleAs>,
    /// The last one listed of the first reason.
    last: Option<ListedEndpoint>,
    count: usize,
}

impl List {
    async fn next(mut self) -> Result<Option<(Bytes, List)>, Failure> {
        let Some(&seen) = self.reasons.front() else { return Ok(None) };
        let page = self.app.store.listed_endpoints(self.caller, seen, self.last.as_ref(), PAGE).await?;
        let mut text = Vec::new();
        for endpoint in &page {
            if self.count > 0 {
                text.push(b',');
            }
            text.extend(wire::json::encode(&Listed {
                uuid: endpoint.id,
                name: endpoint.name.clone(),
                display_name: endpoint.display_name.clone(),
                owner: endpoint.owner,
            }));
            self.count += 1;
        }
        if page.len() < PAGE {
            self.reasons.pop_front();
        }
        self.last = page.into_iter().last().filter(|_| self.reasons.front() == Some(&seen));
        if self.count >= LISTED {
            self.reasons.retain(|reason| *reason == VisibleAs::Owned);
        }
        Ok(Some((self.memory.bytes(text), self)))
    }
}
