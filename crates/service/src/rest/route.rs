//! Describes a route. The router and the OpenAPI document are built from the same table of these.

use axum::routing::{MethodRouter, delete, get, post, put};
use wire::rest::error::Code;

use super::App;

/// One route as clients see it. Names of bodies are those of the schemas in `schemas.json`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    /// `{id}` stands for a UUID, anything else in braces for a word.
    pub(super) path: &'static str,
    /// The operation's id.
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    /// Whether a token is needed.
    pub(super) token: bool,
    pub(super) query: &'static [Parameter],
    pub(super) header: &'static [Parameter],
    pub(super) body: Option<&'static str>,
    pub(super) answer: &'static str,
    /// The error codes that it has beyond those of every such route.
    pub(super) refusals: &'static [Code],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Delete,
}

/// A parameter of the query or a header; never required.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    /// Absent: any text.
    pub(super) values: &'static [&'static str],
}

impl Route {
    /// A route without body and parameters.
    pub(super) const fn new(
        method: Method,
        path: &'static str,
        name: &'static str,
        answer: &'static str,
        summary: &'static str,
    ) -> Route {
        Route {
            method,
            path,
            name,
            summary,
            token: true,
            query: &[],
            header: &[],
            body: None,
            answer,
            refusals: &[],
        }
    }

    pub(super) fn served<H, T>(self, handler: H) -> (Route, MethodRouter<App>)
    where
        H: axum::handler::Handler<T, App>,
        T: 'static,
    {
        let handler = match self.method {
            Method::Get => get(handler),
            Method::Post => post(handler),
            Method::Put => put(handler),
            Method::Delete => delete(handler),
        };
        (self, handler)
    }
}
