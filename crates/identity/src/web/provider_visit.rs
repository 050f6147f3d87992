//! Sends the browser to an identity provider of the site and receives it back.
//!
//! Nothing is stored meanwhile: a cookie holds where to go on, and `state`, `nonce` and verifier are derived from it and the
//! browser's own secret. So an answer is accepted once, and only in the browser that began the sign-in.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::html;

use crate::audit;
use crate::providers::ProviderSignInError;
use crate::providers::claims::SKEW;
use crate::providers::provider::{Exchange, Provider, ProviderError};
use crate::web::page::{self, Page};
use crate::web::{Refused, Visit, Web};
use store::secret;
use store::{Authentication, Method};

/// The maximum age of a sign-in at the provider, in seconds. With it, a provider reports when the sign-in was.
const MAX_AGE: &str = "43200";
/// The longest answer of a provider.
const LONGEST: usize = 8 << 10;

/// Why a sign-in at a provider failed, as the page shows it.
enum VisitError {
    NoSuch,
    /// It was begun in another browser, or was finished before.
    Stranger,
    /// The provider reports that it failed, or that the person refused.
    Declined,
    Provider(ProviderError),
    ProviderSignInError(ProviderSignInError),
    /// The application requires a sign-in now, and the provider gave an older one.
    NotFresh,
    Refused(Refused),
}

impl From<ProviderError> for VisitError {
    fn from(error: ProviderError) -> VisitError {
        VisitError::Provider(error)
    }
}

/// `GET /v2/web/upstream/{name}`: sends the browser to the provider.
pub(crate) async fn begin(State(web): State<Web>, Path(name): Path<String>, mut visit: Visit) -> Response {
    match leave(&web, &name, &mut visit).await {
        Ok(location) => page::go(&location, Some(visit.browser)),
        Err(error) => answer_failure(&web, &name, error, visit),
    }
}

async fn leave(web: &Web, name: &str, visit: &mut Visit) -> Result<String, VisitError> {
    let provider = web.upstreams.named(name).ok_or(VisitError::NoSuch)?;
    let asking = web.asking(visit).await.map_err(VisitError::Refused)?;
    let discovered = provider.discovered(visit.now).await?;
    let state = secret::fresh();
    let carried = visit.carried(&asking, visit.began());
    visit.browser.keep_upstream(&format!("{state}.{name}.{carried}"));
    let way = SignInUnderWay::of(visit, &state, name);
    let settings = &provider.settings;
    let scope = settings.scopes.join(" ");
    let mut pairs = vec![
        ("response_type", "code"),
        ("client_id", &settings.client_id),
        ("redirect_uri", &way.redirect_uri),
        ("scope", &scope),
        ("state", &state),
        ("nonce", &way.nonce),
        ("code_challenge", &way.challenge),
        ("code_challenge_method", "S256"),
        ("max_age", MAX_AGE),
    ];
    if asking.demands.fresh {
        pairs.push(("prompt", "login"));
    }
    let query = serde_urlencoded::to_string(pairs).unwrap_or_default();
    let join = if discovered.authorization_endpoint.contains('?') { '&' } else { '?' };
    Ok(format!("{}{join}{query}", discovered.authorization_endpoint))
}

/// The values of one sign-in at a provider.
struct SignInUnderWay {
    redirect_uri: String,
    nonce: String,
    verifier: String,
    challenge: String,
}

impl SignInUnderWay {
    fn of(visit: &Visit, state: &str, name: &str) -> SignInUnderWay {
        let verifier = visit.browser.proof(&["upstream verifier", state, name]);
        let challenge = base64::Engine::encode(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD,
            <sha2::Sha256 as sha2::Digest>::digest(verifier.as_bytes()),
        );
        SignInUnderWay {
            redirect_uri: format!("{}/v2/web/upstream/{name}/callback", visit.origin),
            nonce: visit.browser.proof(&["upstream nonce", state, name]),
            verifier,
            challenge,
        }
    }
}

/// `GET /v2/web/upstream/{name}/callback`: receives the browser back.
pub(crate) async fn callback(State(web): State<Web>, Path(name): Path<String>, mut visit: Visit) -> Response {
    let done = arrive(&web, &name, &mut visit).await;
    // The cookie is used once, whatever the result.
    visit.browser.drop_upstream();
    match done {
        Ok(location) => page::go(&location, Some(visit.browser)),
        Err(error) => answer_failure(&web, &name, error, visit),
    }
}

async fn arrive(web: &Web, name: &str, visit: &mut Visit) -> Result<String, VisitError> {
    let provider = web.upstreams.named(name).ok_or(VisitError::NoSuch)?;
    let answer = Answer::read(&visit.query).ok_or(VisitError::Stranger)?;
    let kept = visit.browser.upstream().ok_or(VisitError::Stranger)?.to_owned();
    let mut parts = kept.splitn(3, '.');
    let (state, from, carried) = match (parts.next(), parts.next(), parts.next()) {
        (Some(state), Some(from), Some(carried)) => (state, from, carried),
        _ => return Err(VisitError::Stranger),
    };
    let same: bool = subtle::ConstantTimeEq::ct_eq(answer.state.as_bytes(), state.as_bytes()).into();
    if !same || from != name {
        return Err(VisitError::Stranger);
    }
    believes_sender(provider, &answer, visit).await?;
    let code = answer.code.as_deref().ok_or(VisitError::Declined)?;
    // As if the browser had sent the request itself: it is checked again.
    visit.query = carried.to_owned();
    let asking = web.asking(visit).await.map_err(VisitError::Refused)?;
    let began = visit.began();
    let way = SignInUnderWay::of(visit, state, name);
    let exchange =
        Exchange { code, verifier: &way.verifier, redirect_uri: &way.redirect_uri, nonce: &way.nonce };
    let claims = provider.exchange(exchange, visit.now).await?;
    let at = match claims.authenticated {
        // The provider's clock may differ a little from the service's.
        Some(at) if asking.demands.fresh && at >= began - SKEW => visit.now,
        Some(_) | None if asking.demands.fresh => return Err(VisitError::NotFresh),
        Some(at) => at.min(visit.now),
        None => visit.now,
    };
    let profile = web
        .identity
        .by_upstream(&provider.settings, &claims, visit.now)
        .await
        .map_err(VisitError::ProviderSignInError)?;
    let before = web.current_session(visit).await.map_err(|error| VisitError::Refused(error.into()))?;
    let authentication = Authentication {
        identity: profile.id,
        method: Method::Upstream(name.to_owned()),
        mfa: claims.mfa,
        at,
    };
    let browser = visit.browser.hash();
    let cookie = web
        .identity
        .sign_in(&profile, authentication, before.as_ref(), browser, visit.now)
        .await
        .map_err(|error| VisitError::Refused(error.into()))?
        .ok_or(VisitError::ProviderSignInError(ProviderSignInError::LoginEnded))?;
    visit.browser.keep_session(&cookie);
    Ok(format!("/v2/oauth2/authorize?{}", visit.carried(&asking, began)))
}

/// The parameters with which a provider sends the browser back.
struct Answer {
    state: String,
    code: Option<String>,
    issuer: Option<String>,
}

impl Answer {
    fn read(query: &str) -> Option<Answer> {
        if query.len() > LONGEST {
            return None;
        }
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).ok()?;
        let one = |name: &str| {
            let mut all = pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone());
            let first = all.next();
            // A repeated parameter is refused.
            if all.next().is_some() { Err(()) } else { Ok(first) }
        };
        let declined = one("error").ok()?.is_some();
        Some(Answer {
            state: one("state").ok()??,
            code: one("code").ok()?.filter(|_| !declined),
            issuer: one("iss").ok()?,
        })
    }
}

/// Checks that an answer that names its issuer is from this provider.
async fn believes_sender(provider: &Provider, answer: &Answer, visit: &Visit) -> Result<(), VisitError> {
    let always = provider.discovered(visit.now).await?.authorization_response_iss_parameter_supported;
    match &answer.issuer {
        Some(issuer) if *issuer == provider.settings.issuer => Ok(()),
        None if !always => Ok(()),
        _ => Err(VisitError::Stranger),
    }
}

fn answer_failure(web: &Web, name: &str, error: VisitError, visit: Visit) -> Response {
    let title =
        web.upstreams.named(name).map_or("It", |provider| provider.settings.title.as_str()).to_owned();
    let how = format!("oidc:{name}");
    let (status, text) = match error {
        VisitError::Refused(refused) => return web.refuse(refused, visit.browser),
        VisitError::NoSuch => (StatusCode::NOT_FOUND, "There is no such way to sign in.".to_owned()),
        VisitError::Stranger => {
            audit::sign_in_refused(None, &how, "the answer does not belong to this browser");
            let text = "This answer does not belong to a sign-in that was begun in this window, or it was used already.";
            (StatusCode::BAD_REQUEST, text.to_owned())
        }
        VisitError::Declined => (StatusCode::OK, format!("{title} did not sign you in.")),
        VisitError::NotFresh => {
            audit::sign_in_refused(None, &how, "not signed in again");
            let text =
                format!("The application asks that you sign in now, and {title} does not say that you did.");
            (StatusCode::FORBIDDEN, text)
        }
        VisitError::Provider(error) => {
            tracing::warn!(upstream = name, %error, "a sign-in at an upstream failed");
            audit::sign_in_refused(None, &how, "the upstream's answer is not believed");
            let text =
                format!("The sign-in at {title} did not work: its server did not give a proper answer.");
            (StatusCode::BAD_GATEWAY, text)
        }
        VisitError::ProviderSignInError(ProviderSignInError::Store(error)) => {
            return web.refuse(error.into(), visit.browser);
        }
        VisitError::ProviderSignInError(error) => {
            tracing::warn!(upstream = name, %error, "refused a person whom an upstream vouches for");
            audit::sign_in_refused(None, &how, "not let in");
            let text = format!("{title} knows you, but you cannot use this service: {error}.");
            (StatusCode::FORBIDDEN, text)
        }
    };
    let page = Page::new(
        "You are not signed in",
        html! {
            p { (text) }
            p.quiet { "Go back to the program that sent you here and begin again, or ask whoever runs this service." }
        },
    );
    web.show(page.with_status(status), visit.browser)
}
