//! Renders pages: one layout, one style sheet, and headers that allow a browser only to show the page.
//!
//! `maud` escapes everything that is put into a page. A page loads nothing but the service's style sheet, runs no
//! script, is shown in no frame, kept in no cache, and tells no other site where it was.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::browser::Browser;

pub const STYLE_PATH: &str = "/v2/web/style.css";
const STYLE: &str = include_str!("style.css");

/// The content of a page.
#[derive(Debug)]
pub struct Page {
    pub title: String,
    pub status: StatusCode,
    pub body: Markup,
    /// Where a form on it may lead, besides the service.
    pub form_target: Option<String>,
}

impl Page {
    pub fn new(title: impl Into<String>, body: Markup) -> Page {
        Page { title: title.into(), status: StatusCode::OK, body, form_target: None }
    }

    pub fn with_status(self, status: StatusCode) -> Page {
        Page { status, ..self }
    }

    /// A page with one message.
    pub fn saying(status: StatusCode, title: &str, text: &str) -> Page {
        let body = html! { p { (text) } };
        Page::new(title, body).with_status(status)
    }

    /// `site` is the site's name for its service.
    pub fn show(self, site: &str, browser: Option<Browser>) -> Response {
        let policy = match &self.form_target {
            Some(target) => format!("form-action 'self' {target}"),
            None => "form-action 'self'".to_owned(),
        };
        let policy = format!(
            "default-src 'none'; style-src 'self'; img-src data:; {policy}; frame-ancestors 'none'; base-uri 'none'"
        );
        let document = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="robots" content="noindex";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " – " (site) }
                    link rel="icon" href="data:,";
                    link rel="stylesheet" href=(STYLE_PATH);
                }
                body {
                    header { span.mark aria-hidden="true" { } (site) }
                    main {
                        h1 { (self.title) }
                        (self.body)
                    }
                }
            }
        };
        let mut response = (self.status, document.into_string()).into_response();
        let headers = response.headers_mut();
        let fixed = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
            (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // If the target is no valid header value, the strictest policy is used.
        let policy = HeaderValue::from_str(&policy)
            .unwrap_or(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        keep(&mut response, browser);
        response
    }
}

/// Redirects the browser.
pub fn go(location: &str, browser: Option<Browser>) -> Response {
    let Ok(location) = HeaderValue::from_str(location) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    keep(&mut response, browser);
    response
}

fn keep(response: &mut Response, browser: Option<Browser>) {
    for cookie in browser.map(Browser::into_cookies).unwrap_or_default() {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

pub async fn style() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "max-age=3600"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, STYLE).into_response()
}
