//! The pages that a person sees in a browser: signing in, consenting, the code to paste.
//!
//! | file | knows |
//! |---|---|
//! | [`request`], [`redirect`] | which requests are valid, and where codes may be sent; pure |
//! | [`browser`] | cookies and the proofs in forms |
//! | [`page`] | layout, style and headers of every page |
//! | [`authorize`], [`sign_in`], [`consent`], [`code_page`], [`sign_out`] | one step each |
//!
//! ```text
//! authorize --nobody, or not enough--> sign-in page --password--> authorize
//!     |                                     +-----upstream-------> authorize
//!     +--enough--> consent page --allow--> code --> redirect URI (our code page, or a program that listens)
//! ```
//! The browser carries the request from page to page, and each page checks it again: nothing is stored for a person who has
//! not signed in. No page needs a script, and none reveals whether an account exists.

pub mod authorize;
pub mod browser;
pub mod code_page;
pub mod consent;
pub mod page;
pub mod provider_visit;
pub mod redirect;
pub mod request;
pub mod sign_in;
pub mod sign_out;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;

use super::login_throttle::LoginThrottle;
use super::providers::Upstreams;
use super::sessions::CurrentSession;
use super::{Identity, IdentityError};
use crate::clock;
use crate::http::arrival::peer;
use crate::http::caller_log;
use crate::http::host_names::{Names, Origin};
use crate::http::interrupted_body::InterruptedBody;
use crate::store_failure::StoreFailure;
use browser::Browser;
use page::Page;
use request::{AuthorizeQuery, Fault, Request as Asking};
use store::StoreError;

/// The largest form, in bytes.
const FORM_LIMIT: usize = 16 << 10;

/// The state of the pages. Clones share it.
#[derive(Clone, Debug)]
pub struct Web {
    pub(super) identity: Identity,
    pub(super) upstreams: Upstreams,
    names: Names,
    /// The site's name for its service.
    site: Arc<str>,
    throttle: Arc<Mutex<LoginThrottle>>,
}

impl Web {
    pub fn new(identity: Identity, upstreams: Upstreams, names: Names, site: &str) -> Web {
        Web { identity, upstreams, names, site: site.into(), throttle: Arc::default() }
    }

    fn throttle(&self) -> std::sync::MutexGuard<'_, LoginThrottle> {
        // A panic while it was held cannot have left it half changed.
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn show(&self, page: Page, browser: Browser) -> Response {
        page.show(&self.site, Some(browser))
    }

    /// Parses and checks the request in the query.
    pub(super) async fn asking(&self, visit: &Visit) -> Result<Asking, Refused> {
        let asked = AuthorizeQuery::read(&visit.query).map_err(Fault::Page)?;
        let client = asked.client().map_err(Fault::Page)?;
        let application = self.identity.application(client, visit.now).await?;
        let application = application.ok_or(Fault::Page(request::Untrusted::UnknownClient))?;
        Ok(asked.judge(&application, &visit.origin)?)
    }

    /// The session of the browser, if it is signed in.
    pub(super) async fn current_session(&self, visit: &Visit) -> Result<Option<CurrentSession>, StoreError> {
        match visit.browser.session() {
            Some(cookie) => {
                let present = self.identity.current_session(cookie, visit.now).await?;
                if let Some(present) = &present {
                    caller_log::record_identity(present.primary().id);
                }
                Ok(present)
            }
            None => Ok(None),
        }
    }

    fn incomplete_form(&self, interrupted: InterruptedBody) -> Response {
        let status = StatusCode::from_u16(interrupted.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let page = Page::saying(status, "The form did not arrive", &interrupted.to_string());
        let mut response = page.show(&self.site, None);
        if let Some(seconds) = interrupted.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }

    /// Answers a request that cannot go on.
    pub(super) fn refuse(&self, refused: Refused, browser: Browser) -> Response {
        match refused {
            Refused::Fault(Fault::Page(untrusted)) => {
                let page = Page::new(
                    "This request cannot go on",
                    maud::html! {
                        p { (untrusted.to_string()) }
                        p { "Nobody was signed in and nothing was shared. Go back to the program that sent you here and \
                             begin again; if that does not help, tell whoever runs it." }
                    },
                );
                self.show(page.with_status(StatusCode::BAD_REQUEST), browser)
            }
            Refused::Fault(Fault::Redirect(error)) => page::go(&error.location(), Some(browser)),
            Refused::Form(text) => {
                let page = Page::saying(StatusCode::BAD_REQUEST, "This form cannot be used", text);
                self.show(page, browser)
            }
            Refused::Failed(error) => {
                let failure = match &error {
                    IdentityError::Store(error) => StoreFailure::of(error),
                    IdentityError::Gone | IdentityError::Key(_) => {
                        tracing::error!(%error, "cannot answer a page request");
                        StoreFailure::Other
                    }
                };
                if failure == StoreFailure::Nul {
                    let text = "A text holds the character NUL (U+0000), which the service does not store.";
                    let page = Page::saying(StatusCode::BAD_REQUEST, "This form cannot be used", text);
                    return self.show(page, browser);
                }
                let text = "The service cannot do this at the moment. Try again in a minute.";
                let mut response =
                    self.show(Page::saying(StatusCode::SERVICE_UNAVAILABLE, "Not now", text), browser);
                response.headers_mut().insert(header::RETRY_AFTER, failure.retry_after().into());
                response
            }
        }
    }
}

/// Why a request cannot go on.
#[derive(Debug)]
pub(super) enum Refused {
    Fault(Fault),
    /// A form that the service did not make for this browser, or that is malformed.
    Form(&'static str),
    Failed(IdentityError),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Refused {
        Refused::Fault(fault)
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Refused {
        Refused::Failed(error.into())
    }
}

/// A browser's request for a page.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) browser: Browser,
    pub(super) origin: Origin,
    pub(super) peer: IpAddr,
    pub(super) query: String,
    pub(super) now: Timestamp,
    /// Whether the browser reports that a page of the service sent it.
    own: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Visit {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Visit, Self::Rejection> {
        let origin = Origin::from_request_parts(parts, state).await?;
        Ok(Visit {
            browser: Browser::of(&parts.headers, &origin),
            own: browser::from_own_page(&parts.headers),
            origin,
            peer: peer(&parts.extensions),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            now: clock::now(),
        })
    }
}

impl Visit {
    /// When the person was sent here with the request in the query: now, unless the browser proves an earlier time.
    pub(super) fn began(&self) -> Timestamp {
        let since = AuthorizeQuery::read(&self.query).ok().and_then(|asked| asked.began);
        since
            .and_then(|since| self.browser.began(&since))
            .filter(|began| *began <= self.now)
            .unwrap_or(self.now)
    }

    /// The query of `asking`, with the time when the person was sent here.
    pub(super) fn carried(&self, asking: &Asking, began: Timestamp) -> String {
        let since = self.browser.since(began);
        format!("{}&{}={since}", asking.query, request::BEGAN)
    }
}

/// A submitted form.
#[derive(Debug)]
pub(super) struct Posted(Vec<(String, String)>);

impl FromRequest<Web> for Posted {
    type Rejection = Response;

    /// A malformed form is read as empty: without its proof it is refused.
    async fn from_request(request: Request, web: &Web) -> Result<Posted, Response> {
        let form = axum::extract::Form::<Vec<(String, String)>>::from_request(request, web).await;
        if let Some(interrupted) = form.as_ref().err().and_then(|error| InterruptedBody::behind(error)) {
            return Err(web.incomplete_form(interrupted));
        }
        let mut pairs = form.map(|form| form.0).unwrap_or_default();
        let twice = |at: usize| pairs[..at].iter().any(|(name, _)| *name == pairs[at].0);
        let nul = |(name, value): &(String, String)| name.contains('\0') || value.contains('\0');
        if pairs.len() > 20 || (0..pairs.len()).any(twice) || pairs.iter().any(nul) {
            pairs.clear();
        }
        Ok(Posted(pairs))
    }
}

impl Posted {
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }

    /// Refuses a form unless the service made it for this browser and for `parts`.
    pub(super) fn ours(&self, visit: &Visit, parts: &[&str]) -> Result<(), Refused> {
        if visit.own && visit.browser.proves(parts, self.get("proof")) {
            return Ok(());
        }
        Err(Refused::Form(
            "It was not made for this browser, or your browser keeps no cookies for this site. Go back to the program \
             that sent you here and begin again.",
        ))
    }
}

pub fn router(web: Web) -> Router {
    Router::new()
        .route("/v2/oauth2/authorize", get(authorize::authorize))
        .route("/v2/web/sign-in", post(sign_in::sign_in))
        .route("/v2/web/cancel", post(sign_in::cancel))
        .route("/v2/web/consent", post(consent::consent))
        .route("/v2/web/auth-code", get(code_page::code_page))
        .route("/v2/web/logout", get(sign_out::ask).post(sign_out::sign_out))
        .route("/v2/web/upstream/{name}", get(provider_visit::begin))
        .route("/v2/web/upstream/{name}/callback", get(provider_visit::callback))
        .route(page::STYLE_PATH, get(page::style))
        .layer(DefaultBodyLimit::max(FORM_LIMIT))
        .layer(axum::middleware::from_fn_with_state(web.clone(), under_our_name))
        .with_state(web)
}

/// Pages are shown under our own names only: under another, a browser would let that name's owner read them.
async fn under_our_name(
    State(web): State<Web>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = match request.uri().authority() {
        Some(_) => web.names.own(&Method::GET, request.uri()),
        None => web.names.shows_pages(host),
    };
    if own {
        return next.run(request).await;
    }
    let page = Page::new(
        "Not under this name",
        maud::html! {
            p { "This service does not show pages under the name by which your browser found it." }
            p.quiet { "Whoever runs it can add the name, with its port, to " code { "http.public_names" } "." }
        },
    );
    page.with_status(StatusCode::MISDIRECTED_REQUEST).show(&web.site, None).into_response()
}
