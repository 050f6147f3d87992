//! The consent page: which application gets access to what. Shown every time, because any program can claim to be an
//! application that keeps no secret.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use wire::rest::auth::{
    COMPUTE_SCOPE, EMAIL_SCOPE, MANAGE_PROJECTS_SCOPE, OPENID_SCOPE, PROFILE_SCOPE, VIEW_GROUPS_SCOPE,
    VIEW_IDENTITIES_SCOPE,
};

use super::page::{self, Page};
use super::redirect;
use super::request::{AuthorizeError, Request};
use super::sign_in::not_you;
use super::{Posted, Refused, Visit, Web};
use crate::audit;
use crate::sessions::CurrentSession;
use store::Code;

pub(super) fn consent_page(
    asking: &Request,
    application: &str,
    present: &CurrentSession,
    groups: &[String],
    visit: &Visit,
) -> Page {
    let query = visit.carried(asking, visit.began());
    let primary = present.primary();
    let others: Vec<_> = present.set.iter().filter(|profile| profile.id != primary.id).collect();
    let body = html! {
        p.who {
            strong { (application) }
            @if let Some(label) = &asking.label { " (it calls itself “" (label) "”)" }
            " asks to act for you."
        }
        p.who {
            "You are " strong { (primary.username) } ", " (primary.name) "."
            @if present.profile.id != primary.id { " You signed in as " (present.profile.username) "." }
        }
        (not_you(visit, &query))
        div.note {
            p {
                "Go on only if you started this yourself. If somebody sent you the link to this page, they could act \
                 in your name with what comes next."
            }
        }
        h2 { "It may" }
        ul { @for scope in scopes(asking) { li { (scope) } } }
        h2 { "It sees" }
        ul {
            li.who { "who you are: " (described(primary)) }
            @for other in &others { li.who { "that you are also " (described(other)) } }
            @if groups.is_empty() {
                li { "that you are in no group" }
            } @else {
                li.who { "which groups you are in: " (groups.join(", ")) }
            }
        }
        p.quiet.small {
            @if asking.offline {
                "It keeps this access, also while you are away, until you log out in the program, or it has not used \
                 it for half a year. "
            } @else {
                "It keeps this access for two days. "
            }
            @if redirect::is_code_page(&asking.to.redirect_uri, &visit.origin) {
                "Next you are shown a code to paste into the program."
            } @else {
                "Next your browser goes to " (redirect::target(&asking.to.redirect_uri)) "."
            }
        }
        form method="post" action={ "/v2/web/consent?" (query) } {
            input type="hidden" name="proof" value=(visit.browser.proof(&["consent", &query]));
            button type="submit" name="answer" value="allow" { "Allow" }
            button.second type="submit" name="answer" value="deny" { "Do not allow" }
        }
    };
    Page {
        form_target: redirect::form_target(&asking.to.redirect_uri, &visit.origin),
        ..Page::new("Let it act for you?", body)
    }
}

/// Each scope in plain words.
fn scopes(asking: &Request) -> Vec<&'static str> {
    let mut said = Vec::new();
    for scope in asking.grants.iter().flat_map(|grant| &grant.scopes) {
        let text = match scope.as_str() {
            COMPUTE_SCOPE => {
                "run functions in your name, and see, change and remove your endpoints, functions, tasks and results"
            }
            OPENID_SCOPE => "know that it is you",
            EMAIL_SCOPE => "see your e-mail address",
            PROFILE_SCOPE => "see your name and organization",
            VIEW_IDENTITIES_SCOPE => "look up the names of other people here",
            VIEW_GROUPS_SCOPE => "see your groups and who is in them",
            MANAGE_PROJECTS_SCOPE => "see and change your projects and the sign-in policies in them",
            _ => continue,
        };
        said.push(text);
    }
    said
}

fn described(profile: &store::Profile) -> Markup {
    html! {
        (profile.username) " (" (profile.name)
        @if let Some(email) = &profile.email { ", " (email) }
        @if let Some(organization) = &profile.organization { ", " (organization) }
        ")"
    }
}

/// `POST /v2/web/consent`.
pub(super) async fn consent(State(web): State<Web>, visit: Visit, form: Posted) -> Response {
    match attempt(&web, &visit, &form).await {
        Ok(location) => page::go(&location, Some(visit.browser)),
        Err(refused) => web.refuse(refused, visit.browser),
    }
}

async fn attempt(web: &Web, visit: &Visit, form: &Posted) -> Result<String, Refused> {
    let asking = web.asking(visit).await?;
    form.ours(visit, &["consent", &visit.query])?;
    if form.get("answer") != "allow" {
        return Ok(asking
            .redirect_error(AuthorizeError::AccessDenied, "the person did not want to")
            .location());
    }
    let present = web.current_session(visit).await?;
    let need = web.need(&asking, present.as_ref(), visit).await?;
    // Signed out, or signed in too long ago by now: back to the sign-in page.
    let again = || format!("/v2/oauth2/authorize?{}", visit.carried(&asking, visit.began()));
    let (Some(present), None) = (present, need) else { return Ok(again()) };
    let code = Code {
        client: asking.client,
        identity: present.primary().id,
        session: present.session.id,
        grant: uuid::Uuid::nil(),
        redirect_uri: asking.to.redirect_uri.clone(),
        challenge: asking.challenge.clone(),
        scope: asking.scope(),
        state: asking.to.state.clone(),
        nonce: asking.nonce.clone(),
        offline: asking.offline,
        expires: visit.now,
    };
    let Some(text) = web.identity.new_code(code, present.cookie, visit.now).await? else {
        return Ok(again());
    };
    audit::consented(present.primary().id, asking.client, &asking.scope());
    Ok(asking.to.with(&[("code", &text)]))
}
