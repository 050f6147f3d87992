//! The sign-in page, and what its forms do.
//!
//! A wrong password, an unknown username and one without a password get the same answer at the same cost, disabled or not.
//! Only a person with the right password learns that the account is disabled. After too many guesses the answer is how
//! long to wait, whether or not the account exists.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use jiff::SignedDuration;
use maud::{Markup, html};

use super::page::{self, Page};
use super::request::{AuthorizeError, Request};
use super::{Posted, Refused, Visit, Web};
use crate::audit;
use crate::end_reason::EndReason;
use crate::login_throttle::CountedBy;
use crate::password::PasswordError;
use crate::people;
use crate::sessions::CurrentSession;
use crate::sign_in_requirements::MissingRequirement;
use store::secret::Hash;
use store::{Authentication, Method};

/// What the sign-in page shows.
pub(super) struct SignInPage<'a> {
    pub application: &'a str,
    pub asking: &'a Request,
    pub present: Option<&'a CurrentSession>,
    pub need: MissingRequirement,
    /// The browser's session has ended.
    pub ended: bool,
    /// The query that the page passes on.
    pub carried: String,
    pub username: String,
    pub failed: Option<FailedAttempt>,
}

/// Why the last attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FailedAttempt {
    Refused,
    /// The password was right.
    Disabled(EndReason),
    Wait(SignedDuration),
    Busy,
}

impl FailedAttempt {
    fn status(&self) -> StatusCode {
        match self {
            FailedAttempt::Refused => StatusCode::UNAUTHORIZED,
            FailedAttempt::Disabled(_) => StatusCode::FORBIDDEN,
            FailedAttempt::Wait(_) => StatusCode::TOO_MANY_REQUESTS,
            FailedAttempt::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

pub(super) fn sign_in_page(web: &Web, visit: &Visit, about: SignInPage<'_>) -> Page {
    let (asking, query) = (about.asking, &about.carried);
    let proof = visit.browser.proof(&["sign-in", query]);
    let cancel = visit.browser.proof(&["cancel", query]);
    let upstreams: Vec<_> = web.upstreams.all().collect();
    let body = html! {
        p.who {
            strong { (about.application) }
            @if let Some(label) = &asking.label { " (it calls itself “" (label) "”)" }
            " asks to act for you. Sign in to go on."
        }
        @if about.ended { div.note { p { "Your session has ended: sign in again." } } }
        @if let Some(text) = said(&about.need, about.present) { div.note { p { (text) } } }
        @if let Some(message) = &asking.message {
            div.note {
                p { "The application says:" }
                blockquote { (message) }
            }
        }
        @if let Some(failed) = &about.failed {
            div.bad #trouble role="alert" { p { (describe(failed)) } }
        }
        @for upstream in &upstreams {
            a.button href={ "/v2/web/upstream/" (upstream.name) "?" (query) } { "Sign in with " (upstream.title) }
        }
        @if !upstreams.is_empty() { div.or { "or with a password" } }
        form method="post" action={ "/v2/web/sign-in?" (query) } {
            input type="hidden" name="proof" value=(proof);
            label for="username" { "Username" }
            input #username name="username" value=(about.username) type="text" autocomplete="username"
                autocapitalize="none" spellcheck="false" required maxlength="254"
                aria-describedby=[about.failed.as_ref().map(|_| "trouble")] placeholder="name@example.edu";
            label for="password" { "Password" }
            input #password name="password" type="password" autocomplete="current-password" required
                maxlength="1024" aria-describedby=[about.failed.as_ref().map(|_| "trouble")];
            button type="submit" { "Sign in" }
        }
        form method="post" action={ "/v2/web/cancel?" (query) } {
            input type="hidden" name="proof" value=(cancel);
            button.second type="submit" { "Cancel" }
        }
    };
    let status = about.failed.as_ref().map_or(StatusCode::OK, FailedAttempt::status);
    let mut page = Page::new("Sign in", body).with_status(status);
    page.form_target = super::redirect::form_target(&asking.to.redirect_uri, &visit.origin);
    page
}

/// Why the person must sign in, if the page must explain it.
fn said(need: &MissingRequirement, present: Option<&CurrentSession>) -> Option<String> {
    let so_far = present.map(|present| format!(" You are signed in as {}.", present.profile.username));
    let so_far = so_far.unwrap_or_default();
    Some(match need {
        MissingRequirement::Anybody => return None,
        MissingRequirement::Again => {
            format!("The application asks that you sign in now, even if you have before.{so_far}")
        }
        MissingRequirement::As(wanted) => {
            format!("The application asks that you sign in as {wanted}.{so_far}")
        }
        MissingRequirement::Of(domains) => format!(
            "This needs a username that ends in {}.{so_far}",
            domains.iter().map(|domain| format!("@{domain}")).collect::<Vec<_>>().join(" or ")
        ),
        MissingRequirement::NotOf(domains) => format!(
            "This cannot be done with a username that ends in {}.{so_far}",
            domains.iter().map(|domain| format!("@{domain}")).collect::<Vec<_>>().join(" or ")
        ),
        MissingRequirement::Within(age) => {
            format!("This needs a sign-in that is not older than {}. Yours is; sign in again.", spoken(*age))
        }
        MissingRequirement::SecondFactor => {
            "This needs a sign-in with a second factor. A password alone will not do: use your \
             organization's sign-in, if it is offered here and asks for one."
                .to_owned()
        }
        MissingRequirement::Unknown(policy) => format!(
            "This is protected by the policy {policy}, which does not exist here. Signing in will not help."
        ),
    })
}

fn describe(failed: &FailedAttempt) -> String {
    match failed {
        FailedAttempt::Refused => {
            "The username or the password is not right, or this account cannot sign in with a password."
                .to_owned()
        }
        FailedAttempt::Disabled(why) => format!("{why}."),
        FailedAttempt::Wait(wait) => format!(
            "There were too many attempts that were not right, from this account or this address. Wait {}, then try \
             again. Nothing was tried just now.",
            spoken(*wait)
        ),
        FailedAttempt::Busy => {
            "Too many people are signing in at the moment. Try again in a few seconds.".to_owned()
        }
    }
}

/// A duration for people to read, rounded up.
pub(super) fn spoken(span: SignedDuration) -> String {
    let seconds = (span.as_millis() + 999) / 1000;
    let (count, unit) = match seconds {
        ..=90 => (seconds.max(1), "second"),
        91..=5400 => ((seconds + 59) / 60, "minute"),
        _ => ((seconds + 3599) / 3600, "hour"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// `POST /v2/web/sign-in`.
pub(super) async fn sign_in(State(web): State<Web>, mut visit: Visit, form: Posted) -> Response {
    match attempt(&web, &mut visit, &form).await {
        Ok(Ok(location)) => page::go(&location, Some(visit.browser)),
        Ok(Err((page, wait))) => {
            let mut response = web.show(page, visit.browser);
            if let Some(wait) = wait {
                let seconds = ((wait.as_millis() + 999) / 1000).to_string();
                let seconds = HeaderValue::from_str(&seconds);
                response.headers_mut().extend(seconds.map(|value| (header::RETRY_AFTER, value)));
            }
            response
        }
        Err(refused) => web.refuse(refused, visit.browser),
    }
}

type Again = (Page, Option<SignedDuration>);

async fn attempt(web: &Web, visit: &mut Visit, form: &Posted) -> Result<Result<String, Again>, Refused> {
    let asking = web.asking(visit).await?;
    let carried = visit.carried(&asking, visit.began());
    form.ours(visit, &["sign-in", &visit.query.clone()])?;
    let (username, password) = (form.get("username"), form.get("password"));
    let before = web.current_session(visit).await?;
    let signed_in = match guess(web, visit, username, password).await? {
        Ok(profile) => {
            let authentication =
                Authentication { identity: profile.id, method: Method::Password, mfa: false, at: visit.now };
            let browser = visit.browser.hash();
            web.identity
                .sign_in(&profile, authentication, before.as_ref(), browser, visit.now)
                .await?
                // It was reset or disabled since the password was read: what was typed is not right any more.
                .ok_or(FailedAttempt::Refused)
        }
        Err(failed) => Err(failed),
    };
    match signed_in {
        Ok(cookie) => {
            visit.browser.keep_session(&cookie);
            Ok(Ok(format!("/v2/oauth2/authorize?{carried}")))
        }
        Err(failed) => {
            let need =
                web.need(&asking, before.as_ref(), visit).await?.unwrap_or(MissingRequirement::Anybody);
            let application = web.application_name(&asking, visit).await?;
            let wait = if let FailedAttempt::Wait(wait) = failed { Some(wait) } else { None };
            let page = SignInPage {
                application: &application,
                asking: &asking,
                present: before.as_ref(),
                need,
                ended: false,
                carried,
                username: username.chars().take(254).collect(),
                failed: Some(failed),
            };
            Ok(Err((sign_in_page(web, visit, page), wait)))
        }
    }
}

/// Checks a password and counts the attempt.
async fn guess(
    web: &Web,
    visit: &Visit,
    username: &str,
    password: &str,
) -> Result<Result<store::Profile, FailedAttempt>, Refused> {
    // Normalized, so that another spelling gives no further guesses; what is no username is counted as typed.
    let typed = people::username(username).unwrap_or_else(|| username.to_owned());
    let account = Hash::of(&typed);
    let known = match web.identity.profile_named(&typed).await? {
        Some(profile) => web.identity.browser_known(visit.browser.hash(), profile.id).await?,
        None => false,
    };
    let by = CountedBy::all(account, visit.browser.hash(), known, visit.peer);
    if let Err(wait) = web.throttle().begin(&by, visit.now) {
        audit::sign_in_refused(None, "password", "too many attempts");
        return Ok(Err(FailedAttempt::Wait(wait)));
    }
    match web.identity.verify_password(&typed, password, visit.peer).await {
        Ok(profile) => {
            web.throttle().right(&by);
            Ok(Ok(profile))
        }
        Err(PasswordError::Disabled(why)) => {
            web.throttle().right(&by);
            let whom = web.identity.profile_named(&typed).await?.map(|profile| profile.id);
            audit::sign_in_refused(whom, "password", "disabled");
            Ok(Err(FailedAttempt::Disabled(why)))
        }
        Err(PasswordError::Busy) => {
            web.throttle().undone(&by);
            Ok(Err(FailedAttempt::Busy))
        }
        Err(PasswordError::Store(error)) => {
            web.throttle().undone(&by);
            Err(error.into())
        }
        Err(_) => {
            let whom = web.identity.profile_named(&typed).await?.map(|profile| profile.id);
            audit::sign_in_refused(whom, "password", "unknown or wrong");
            Ok(Err(FailedAttempt::Refused))
        }
    }
}

/// `POST /v2/web/cancel`: the person refuses.
pub(super) async fn cancel(State(web): State<Web>, visit: Visit, form: Posted) -> Response {
    let done = async {
        let asking = web.asking(&visit).await?;
        form.ours(&visit, &["cancel", &visit.query])?;
        Ok(asking.redirect_error(AuthorizeError::AccessDenied, "the person did not want to").location())
    };
    match done.await {
        Ok(location) => page::go(&location, Some(visit.browser)),
        Err(refused) => web.refuse(refused, visit.browser),
    }
}

/// "Not you?" on a page that shows who is signed in.
pub(super) fn not_you(visit: &Visit, query: &str) -> Markup {
    html! {
        form method="post" action={ "/v2/web/logout?" (query) } {
            input type="hidden" name="proof" value=(visit.browser.proof(&["logout", query]));
            button.link type="submit" { "Not you? Sign in as somebody else" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_said_as_people_say_them() {
        for (seconds, text) in
            [(0, "1 second"), (1, "1 second"), (64, "64 seconds"), (91, "2 minutes"), (900, "15 minutes")]
        {
            assert_eq!(spoken(SignedDuration::from_secs(seconds)), text);
        }
        assert_eq!(spoken(SignedDuration::from_millis(1001)), "2 seconds");
        assert_eq!(spoken(SignedDuration::from_hours(2)), "2 hours");
    }
}
