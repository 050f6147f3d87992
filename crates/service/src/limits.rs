//! The limits that an operator may set: the section `limits` of the configuration, with defaults and checks.
//!
//! The defaults are far above what normal use needs, and far below what the machine has. A limit that is part of a protocol,
//! or that nobody has a reason to change, is a constant beside the code that keeps it.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// One packed payload, in bytes.
    pub payload_bytes: usize,
    /// The body of any request but a submit, in bytes.
    pub body_bytes: usize,
    /// Bodies of all requests that are being received or worked on, in bytes, in memory and in files. An address may
    /// have half of what others leave, and an identity half of what others leave of half of it; beyond that, they are
    /// refused with 503. Answers that were not read yet may take half as much memory besides, and an identity half of what
    /// others leave of that.
    pub bodies_in_flight_bytes: usize,
    /// How long all of a body may take to arrive.
    pub body_seconds: u32,
    /// The lowest rate at which a body may arrive, measured over ten seconds. Half of it is the lowest rate at which
    /// an answer may be read, measured over two minutes.
    pub body_bytes_per_second: u32,
    /// How long the head of a request may take from its first byte.
    pub head_seconds: u32,
    /// How long an HTTP connection may be idle.
    pub idle_connection_seconds: u32,
    /// HTTP connections at a time. An address may have half of what others leave: one more ends its longest idle one.
    pub http_connections: usize,
    /// AMQP connections that are logged in. An address may have half of what others leave, and an identity, with its
    /// endpoints, half of what others leave of half of it.
    pub amqp_connections: usize,
    /// Tasks in one submit, over all functions.
    pub tasks_per_submit: usize,
    pub functions_per_submit: usize,
    /// Tasks that one request may ask about.
    pub tasks_per_status: usize,
    /// Payloads and results of this size and more are stored in files of their own, beside the database.
    pub file_from_bytes: usize,
    /// Requests of one identity in a second, on average.
    pub requests_per_second: u32,
    /// Requests of one identity at once, after a time without any.
    pub requests_at_once: u32,
    /// Endpoints that one identity may have, and as many user endpoints besides.
    pub endpoints_per_identity: u32,
    /// How long a retry of a submit whose answer was lost gets the same answer.
    pub resent_seconds: u32,
    /// How long the key of `Idempotency-Key` is remembered.
    pub idempotency_hours: u32,
    /// How long a result is kept.
    pub result_days: u32,
    /// How long a task may wait for its endpoint.
    pub task_days: u32,
    /// How long the service remembers an expired task.
    pub expired_days: u32,
    /// How long a locked endpoint cannot be registered.
    pub lock_seconds: u32,
    /// How long an endpoint may be online without taking a task before its status says so.
    pub idle_seconds: u32,
    /// How long a user endpoint without open tasks is remembered after its last task.
    pub user_endpoint_days: u32,
    /// How often in a row a user endpoint that died is started again for the tasks that it left, before they end with an error.
    pub restarts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            payload_bytes: 64 << 20,
            body_bytes: wire::rest::LIMIT,
            bodies_in_flight_bytes: 512 << 20,
            body_seconds: 600,
            body_bytes_per_second: 16 << 10,
            head_seconds: 10,
            idle_connection_seconds: 120,
            http_connections: 8_192,
            amqp_connections: 16_384,
            tasks_per_submit: wire::rest::submit::MAX_TASKS,
            functions_per_submit: 1_000,
            tasks_per_status: 10_000,
            file_from_bytes: store::FILE_FROM_BYTES,
            requests_per_second: 2_000,
            requests_at_once: 20_000,
            endpoints_per_identity: 1_000,
            resent_seconds: 120,
            idempotency_hours: 24,
            result_days: 14,
            task_days: 14,
            expired_days: 90,
            lock_seconds: 300,
            idle_seconds: 60,
            user_endpoint_days: 30,
            restarts: 5,
        }
    }
}

impl Limits {
    /// The largest body of a submit: one payload, its escapes in JSON, and a little more.
    pub fn submit_bytes(&self) -> usize {
        self.payload_bytes + (wire::rest::SUBMIT_LIMIT - (64 << 20))
    }

    /// Checks that the limits fit together. The error says which key to change.
    pub fn check(&self) -> Result<(), String> {
        let least = 4 * self.submit_bytes().max(self.body_bytes);
        if self.http_connections < 8 || self.amqp_connections < 8 {
            return Err("limits.http_connections, limits.amqp_connections: must be at least 8".into());
        }
        if self.bodies_in_flight_bytes < least {
            return Err(format!(
                "limits.bodies_in_flight_bytes: an identity may have a quarter of it, and {} would not hold the largest \
                 body: set it to {least} or more, or lower limits.payload_bytes",
                self.bodies_in_flight_bytes
            ));
        }
        Ok(())
    }

    /// Lowers the numbers of connections to what `descriptors` allow. Returns whether it had to.
    pub fn fit(&mut self, descriptors: usize) -> bool {
        // The rest is for the database, files of bodies and payloads, and listening sockets.
        let room = descriptors - (descriptors / 4).min(1_024);
        // Besides each limit, a quarter of it may be connections whose protocol or user isn't known yet.
        let wanted = (self.http_connections.saturating_add(self.amqp_connections) / 4).saturating_mul(5);
        if wanted <= room {
            return false;
        }
        let lowered = |connections: usize| connections.saturating_mul(room) / wanted;
        self.http_connections = lowered(self.http_connections);
        self.amqp_connections = lowered(self.amqp_connections);
        true
    }

    pub fn resent(&self) -> SignedDuration {
        SignedDuration::from_secs(self.resent_seconds.into())
    }

    pub fn idempotency(&self) -> SignedDuration {
        SignedDuration::from_hours(self.idempotency_hours.into())
    }

    pub fn result_life(&self) -> SignedDuration {
        SignedDuration::from_hours(i64::from(self.result_days) * 24)
    }

    pub fn task_life(&self) -> SignedDuration {
        SignedDuration::from_hours(i64::from(self.task_days) * 24)
    }

    pub fn expired_life(&self) -> SignedDuration {
        SignedDuration::from_hours(i64::from(self.expired_days) * 24)
    }

    pub fn user_endpoint_life(&self) -> SignedDuration {
        SignedDuration::from_hours(i64::from(self.user_endpoint_days) * 24)
    }

    pub fn idle(&self) -> SignedDuration {
        SignedDuration::from_secs(self.idle_seconds.into())
    }

    pub fn lock(&self) -> SignedDuration {
        SignedDuration::from_secs(self.lock_seconds.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_open_files() {
        let mut limits = Limits::default();
        assert!(!limits.fit(100_000) && limits == Limits::default());
        assert!(limits.fit(4_096));
        assert_eq!((limits.http_connections, limits.amqp_connections), (819, 1_638));
        assert!(!limits.fit(4_096), "and then they do");
    }
}
