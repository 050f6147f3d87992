//! `GET /v2/web/auth-code`: shows the code, for pasting into a program that cannot listen for it.
//!
//! It shows only what has the form of a code, because others can craft its address and must not put text on the page.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use maud::html;

use super::page::Page;
use super::{Visit, Web};

pub(super) async fn code_page(State(web): State<Web>, visit: Visit) -> Response {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(&visit.query).unwrap_or_default();
    let all = |name: &str| -> Vec<&str> {
        pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    };
    let page = match (all("code")[..].first(), all("code").len(), all("error").first()) {
        (Some(code), 1, None) if is_code(code) => shown(code),
        (None, _, Some(&"access_denied")) => Page::saying(
            StatusCode::OK,
            "Not allowed",
            "You did not allow it: nothing was shared. You can close this page, and stop the program that waits for a \
             code.",
        ),
        (None, _, Some(_)) => Page::saying(
            StatusCode::BAD_REQUEST,
            "This did not work",
            "The program that sent you here asked for something that is not possible. Nothing was shared. Tell whoever \
             runs it.",
        ),
        _ => Page::saying(
            StatusCode::BAD_REQUEST,
            "There is no code here",
            "Go back to the program that sent you here and begin again.",
        ),
    };
    web.show(page, visit.browser)
}

fn is_code(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
}

fn shown(code: &str) -> Page {
    let body = html! {
        p #what { "Copy this code and paste it where the program asks for it." }
        code.code #code tabindex="0" aria-describedby="what" { (code) }
        p.quiet.small { "It works once, within ten minutes. Then you can close this page." }
        div.note {
            p { "Give it to nobody else, and paste it nowhere else: whoever has it may be able to act in your name." }
        }
    };
    Page::new("Your code", body)
}
