//! Violations of the protocol: reply code, text, and what they close.

use crate::core::Error;

/// A reply code of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    ContentTooLarge = 311,
    ConnectionForced = 320,
    AccessRefused = 403,
    NotFound = 404,
    ResourceLocked = 405,
    PreconditionFailed = 406,
    FrameError = 501,
    SyntaxError = 502,
    CommandInvalid = 503,
    ChannelError = 504,
    UnexpectedFrame = 505,
    ResourceError = 506,
    NotAllowed = 530,
    NotImplemented = 540,
}

impl Code {
    /// Whether it closes only the channel (a soft error) rather than the connection (a hard error).
    fn closes_channel(self) -> bool {
        matches!(
            self,
            Code::ContentTooLarge
                | Code::AccessRefused
                | Code::NotFound
                | Code::ResourceLocked
                | Code::PreconditionFailed
        )
    }

    fn name(self) -> &'static str {
        match self {
            Code::ContentTooLarge => "CONTENT_TOO_LARGE",
            Code::ConnectionForced => "CONNECTION_FORCED",
            Code::AccessRefused => "ACCESS_REFUSED",
            Code::NotFound => "NOT_FOUND",
            Code::ResourceLocked => "RESOURCE_LOCKED",
            Code::PreconditionFailed => "PRECONDITION_FAILED",
            Code::FrameError => "FRAME_ERROR",
            Code::SyntaxError => "SYNTAX_ERROR",
            Code::CommandInvalid => "COMMAND_INVALID",
            Code::ChannelError => "CHANNEL_ERROR",
            Code::UnexpectedFrame => "UNEXPECTED_FRAME",
            Code::ResourceError => "RESOURCE_ERROR",
            Code::NotAllowed => "NOT_ALLOWED",
            Code::NotImplemented => "NOT_IMPLEMENTED",
        }
    }
}

/// What a client did wrong: code, text and the method that did it (0, 0 when none did).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) code: Code,
    text: String,
    pub(crate) class: u16,
    pub(crate) method: u16,
}

impl Violation {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Violation {
        Violation { code, text: text.into(), class: 0, method: 0 }
    }

    /// Sets the method, unless it is set already.
    pub(crate) fn by(mut self, (class, method): (u16, u16)) -> Violation {
        if self.class == 0 {
            (self.class, self.method) = (class, method);
        }
        self
    }

    pub(crate) fn closes_channel(&self) -> bool {
        self.code.closes_channel()
    }

    /// The reply text in RabbitMQ's form, shortened to what a short string holds.
    pub(crate) fn reply_text(&self) -> String {
        crate::message::short(&format!("{} - {}", self.code.name(), self.text)).to_owned()
    }
}

/// The violation for what the core refused about a queue.
pub(super) fn about_queue(error: Error, queue: &str, vhost: &str) -> Violation {
    match error {
        Error::NoQueue => Violation::new(Code::NotFound, format!("no queue '{queue}' in vhost '{vhost}'")),
        Error::NoExchange => Violation::new(Code::NotFound, format!("no exchange in vhost '{vhost}'")),
        Error::Different { what } => Violation::new(
            Code::PreconditionFailed,
            format!("inequivalent arg '{what}' for queue '{queue}' in vhost '{vhost}'"),
        ),
        Error::Locked => Violation::new(
            Code::ResourceLocked,
            format!(
                "cannot obtain exclusive access to locked queue '{queue}' in vhost '{vhost}'. It could be originally \
                 declared on another connection or the exclusive property value does not match that of the original \
                 declaration."
            ),
        ),
        Error::InUse => Violation::new(
            Code::AccessRefused,
            format!("queue '{queue}' in vhost '{vhost}' in exclusive use"),
        ),
        Error::StillUsed => {
            Violation::new(Code::PreconditionFailed, format!("queue '{queue}' in vhost '{vhost}' in use"))
        }
        Error::NotEmpty => {
            Violation::new(Code::PreconditionFailed, format!("queue '{queue}' in vhost '{vhost}' not empty"))
        }
        Error::TagTaken | Error::UnknownTag | Error::WindowEnded => {
            Violation::new(Code::PreconditionFailed, error.to_string())
        }
    }
}
