//! Reports to the service why a user endpoint could not be started, in a status report: its waiting tasks fail with that reason.

use std::time::Duration;

use client::amqp::{self, Event, Item, LinkConfig, LinkEnd};
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
    let port = config.and_then(|config| config.common.amqp_port);
    // An error here can't be reported to anybody.
    let _ = block_on(async {
        let _ = send_notice(credentials, port, authorities, text(failure)).await;
        Ok(())
    });
}

/// Sends a reason with a user endpoint's credentials. The error is for the log.
pub(crate) async fn send_notice(
    credentials: Registration,
    port: Option<u16>,
    authorities: Option<String>,
    reason: String,
) -> Result<(), String> {
    let endpoint_id = credentials.endpoint_id;
    let state = serde_json::Map::from_iter([
        ("error".to_owned(), reason.into()),
        ("heartbeat_period".to_owned(), PERIOD.into()),
    ]);
    let report =
        StatusReport { endpoint_id, global_state: state.into(), task_statuses: Default::default() }.encode();
    let name = format!("endpoint {endpoint_id}");
    let mut config =
        LinkConfig::new(&credentials, port, authorities, 1, name).map_err(|error| error.to_string())?;
    // This link consumes neither tasks nor commands.
    config.commands = None;
    config.exclusive = false;
    let work = async {
        let (link, mut events) = amqp::start(config);
        link.consume(false);
        let mut settled = false;
        let mut problem = "the link ended".to_owned();
        while let Some(event) = events.recv().await {
            match event {
                Event::Up { session } => link.publish(session, Item::Heartbeat, report.clone()),
                Event::Settled { .. } => {
                    settled = true;
                    link.close();
                }
                Event::Down { reason, .. } => problem = reason,
                Event::Ended(LinkEnd::AuthenticationRefused(reason)) => problem = reason,
                Event::Ended(_) => break,
                Event::Delivered(_) | Event::Commanded(_) => {}
            }
        }
        if settled { Ok(()) } else { Err(problem) }
    };
    let outcome = tokio::time::timeout(PATIENCE, work).await;
    outcome.unwrap_or_else(|_| Err(format!("the broker did not take it within {} s", PATIENCE.as_secs())))
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
