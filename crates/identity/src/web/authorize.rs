//! `GET /v2/oauth2/authorize`: where a client sends a person.

use axum::extract::State;
use axum::response::Response;
use uuid::Uuid;

use super::consent::consent_page;
use super::page;
use super::request::{AuthorizeError, Request};
use super::sign_in::{SignInPage, sign_in_page};
use super::{Refused, Visit, Web};
use crate::sessions::CurrentSession;
use crate::sign_in_requirements::{self, MissingRequirement, PolicyRequirements};
use store::StoreError;

pub(super) async fn authorize(State(web): State<Web>, visit: Visit) -> Response {
    match attempt(&web, &visit).await {
        Ok(Next::Page(page)) => web.show(page, visit.browser),
        Ok(Next::Go(location)) => page::go(&location, Some(visit.browser)),
        Err(refused) => web.refuse(refused, visit.browser),
    }
}

enum Next {
    Page(page::Page),
    Go(String),
}

async fn attempt(web: &Web, visit: &Visit) -> Result<Next, Refused> {
    let asking = web.asking(visit).await?;
    let present = web.current_session(visit).await?;
    let ended = present.is_none() && visit.browser.session().is_some();
    let began = visit.began();
    let need = web.need(&asking, present.as_ref(), visit).await?;
    if asking.silent {
        let (error, text) = match need {
            Some(_) => (AuthorizeError::LoginRequired, "somebody has to sign in"),
            None => (AuthorizeError::ConsentRequired, "the person is always asked"),
        };
        return Ok(Next::Go(asking.redirect_error(error, text).location()));
    }
    let application = web.application_name(&asking, visit).await?;
    let page = match (present, need) {
        (Some(present), None) => {
            let groups = web.identity.groups_named(present.primary().id).await?;
            consent_page(&asking, &application, &present, &groups, visit)
        }
        (present, need) => {
            let page = SignInPage {
                application: &application,
                asking: &asking,
                present: present.as_ref(),
                need: need.unwrap_or(MissingRequirement::Anybody),
                ended,
                carried: visit.carried(&asking, began),
                username: asking.hint.clone().unwrap_or_default(),
                failed: None,
            };
            sign_in_page(web, visit, page)
        }
    };
    Ok(Next::Page(page))
}

impl Web {
    /// The requirement of `asking` that the session does not meet.
    pub(super) async fn need(
        &self,
        asking: &Request,
        present: Option<&CurrentSession>,
        visit: &Visit,
    ) -> Result<Option<MissingRequirement>, StoreError> {
        let shown = present.map(CurrentSession::identities).unwrap_or_default();
        let mut terms: Vec<(Uuid, Option<PolicyRequirements>)> = Vec::new();
        for policy in &asking.demands.policies {
            terms.push((*policy, self.identity.policy_requirements(*policy).await?));
        }
        Ok(sign_in_requirements::unmet(&asking.demands, &terms, &shown, visit.began(), visit.now))
    }

    /// The name under which the application is registered.
    pub(super) async fn application_name(
        &self,
        asking: &Request,
        visit: &Visit,
    ) -> Result<String, StoreError> {
        let application = self.identity.application(asking.client, visit.now).await?;
        Ok(application.map_or_else(String::new, |application| application.name().to_owned()))
    }
}
