//! The core against models so simple that they can be believed: for each queue what waits, for each channel what it
//! holds. Three worlds: [`consumers`] looks closely at deliveries, [`backing`] at windows, and [`machine`] has everything
//! at once: exchanges, limits, times to live, sinks.
//!
//! The core has failed when
//!
//! 1. a message is not in every queue it matches and takes part in, or is in another (routing, loss);
//! 2. a delivery is not the oldest that waits in its queue (order for each queue and publisher, delivery to two at
//!    once: what somebody holds does not wait);
//! 3. `redelivered` does not say whether the message has been delivered before;
//! 4. a message waits after an operation although a consumer could have taken it;
//! 5. after a channel or connection is gone, what it held is not waiting again in its place, each exactly once;
//! 6. a publisher hears anything but one answer to each publish, hears it before every sink has answered, or hears
//!    that a message is safe which one of its queues refused; or a `multiple` could be read as an answer to others;
//! 7. anything outlives its time, its queue's limits or its queue's disuse, or goes before;
//! 8. with a backing: a token is answered twice or never, more is held than the window and the limit of
//!    unacknowledged allow, or anything is held without consumers;
//! 9. the counters or the memory differ from what the model adds up to, or are not zero at the end.

mod backing;
mod consumers;
mod machine;

use super::Settings;
use crate::message::Message;

const SETTINGS: Settings =
    Settings { memory_limit: 1 << 30, output_window: 1 << 30, delivery_limit: 1_000_000 };

/// Which message it is: bodies begin or end with their number.
fn number_of(message: &Message) -> u64 {
    std::str::from_utf8(message.body()).unwrap().trim().parse().unwrap()
}
