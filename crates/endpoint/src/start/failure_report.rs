//! Reports to the service why a user endpoint could not be started, in a status report: its waiting tasks fail with that reason.

use std::time::Duration;

use client::amqp::{self, Event, Item, LinkConfig};
use wire::message::StatusReport;
use wire::queue::Registration;

use crate::config::Config;
use crate::exit::{Failure, block_on, status};

/// How long sending may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The heartbeat period in the report, in seconds: the service expects nothing more after it.
const PERIOD: u64 = 3;

/// Sends the reason. The configuration, if it can be read, names the AMQP port. An error while sending is ignored, because the
/// failure is printed as well.
pub(crate) fn send(
    credentials: Registration,
    config: Option<&Config>,
    authorities: Option<String>,
    failure: &Failure,
) {
    let endpoint_id = credentials.endpoint_id;
    let state = serde_json::Map::from_iter([
        ("error".to_owned(), text(failure).into()),
        ("heartbeat_period".to_owned(), PERIOD.into()),
    ]);
    let report =
        StatusReport { endpoint_id, global_state: state.into(), task_statuses: Default::default() }.encode();
    // This link consumes neither tasks nor commands.
    let port = config.and_then(|config| config.common.amqp_port);
    let name = format!("endpoint {endpoint_id}");
    let Ok(mut config) = LinkConfig::new(&credentials, port, authorities, 1, name) else { return };
    config.commands = None;
    config.exclusive = false;
    let work = async {
        let (link, mut events) = amqp::start(config);
        link.consume(false);
        while let Some(event) = events.recv().await {
            match event {
                Event::Up { session } => link.publish(session, Item::Heartbeat, report.clone()),
                Event::Settled { .. } => link.close(),
                Event::Ended(_) => break,
                Event::Delivered(_) | Event::Commanded(_) | Event::Down { .. } => {}
            }
        }
    };
    // An error here can't be reported to anybody.
    let _ = block_on(async {
        let _ = tokio::time::timeout(PATIENCE, work).await;
        Ok(())
    });
}

/// The reason in the form of upstream's endpoint.
fn text(failure: &Failure) -> String {
    let message = failure.text.strip_prefix("Error: ").unwrap_or(&failure.text);
    match failure.status {
        status::GENERIC => format!("Failed to start or unexpected error:\n  (ClickException) {message}"),
        code => format!("Failed to start or unexpected error:\n  (SystemExit) {code}\n{message}")
            .trim_end()
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_in_upstreams_form() {
        let bad = Failure::error("1 validation error for UserEndpointConfigModel\nfoo\n  extra");
        assert_eq!(
            text(&bad),
            "Failed to start or unexpected error:\n  (ClickException) 1 validation error for \
             UserEndpointConfigModel\nfoo\n  extra"
        );
        let failed = Failure::new(78, "Error: endpoint_setup failed");
        assert_eq!(
            text(&failed),
            "Failed to start or unexpected error:\n  (SystemExit) 78\nendpoint_setup failed"
        );
    }
}
