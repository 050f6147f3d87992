//! `/v2/web/logout`: ends the browser's session. Programs keep their tokens, and log out by themselves.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use maud::html;

use super::page::{self, Page};
use super::{Posted, Refused, Visit, Web};

pub(super) async fn ask(State(web): State<Web>, visit: Visit) -> Response {
    let present = match web.current_session(&visit).await {
        Ok(present) => present,
        Err(error) => return web.refuse(error.into(), visit.browser),
    };
    let page = match present {
        None => Page::saying(StatusCode::OK, "Signed out", "Nobody is signed in with this browser."),
        Some(present) => Page::new(
            "Sign out?",
            html! {
                p.who { "You are signed in as " strong { (present.profile.username) } "." }
                form method="post" action="/v2/web/logout" {
                    input type="hidden" name="proof" value=(visit.browser.proof(&["logout", ""]));
                    button type="submit" { "Sign out" }
                }
                p.quiet.small { "Programs that you let act for you keep doing so until you log out in them." }
            },
        ),
    };
    web.show(page, visit.browser)
}

/// With a request in the query, the person goes on to sign in as another user.
pub(super) async fn sign_out(State(web): State<Web>, mut visit: Visit, form: Posted) -> Response {
    match attempt(&web, &mut visit, &form).await {
        Ok(location) => page::go(&location, Some(visit.browser)),
        Err(refused) => web.refuse(refused, visit.browser),
    }
}

async fn attempt(web: &Web, visit: &mut Visit, form: &Posted) -> Result<String, Refused> {
    form.ours(visit, &["logout", &visit.query.clone()])?;
    if let Some(present) = web.current_session(visit).await? {
        web.identity.sign_out(&present).await?;
    }
    visit.browser.drop_session();
    if visit.query.is_empty() {
        return Ok("/v2/web/logout".to_owned());
    }
    let asking = web.asking(visit).await?;
    Ok(format!("/v2/oauth2/authorize?{}", visit.carried(&asking, visit.began())))
}
