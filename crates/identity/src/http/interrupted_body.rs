//! Why the rest of a request's body is not awaited any longer. The server ends the body with one of these errors, and the route
//! that reads the body answers with its status and text.

use std::error::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterruptedBody {
    #[error(
        "The request's body did not arrive in time: it came slower than limits.body_bytes_per_second or took longer than \
         limits.body_seconds"
    )]
    TooSlow,
    /// The connection was closed for another one of the same address.
    #[error(
        "Too many connections from your address are open, and this one sent nothing for longest; try again shortly \
         (limits.http_connections)"
    )]
    MadeRoom,
}

impl InterruptedBody {
    /// What is behind an error that was met while reading a body, if it is one of these.
    pub fn behind(error: &(dyn Error + 'static)) -> Option<InterruptedBody> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(interrupted) = error.downcast_ref() {
                return Some(*interrupted);
            }
            cause = error.source();
        }
        None
    }

    pub fn status(self) -> u16 {
        match self {
            InterruptedBody::TooSlow => 408,
            InterruptedBody::MadeRoom => 503,
        }
    }

    /// When the client may try again, in seconds.
    pub fn retry_after(self) -> Option<u32> {
        match self {
            InterruptedBody::TooSlow => None,
            InterruptedBody::MadeRoom => Some(2),
        }
    }
}
