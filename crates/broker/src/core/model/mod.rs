//! Tests of the core against simple models, with random operations. The models keep for each queue what waits, and for
//! each channel what it holds. [`consumers`] looks closely at deliveries, [`backing`] at windows, and [`machine`] has
//! everything together: exchanges, limits, times to live, sinks.
//!
//! A test fails when
//!
//! 1. a message is not in every queue that it matches and that takes it, or is in another (routing, loss);
//! 2. a delivery is not the oldest that waits in its queue (order for each queue and publisher, delivery to two
//!    consumers: what one holds does not wait);
//! 3. `redelivered` does not say whether the message has been delivered before;
//! 4. a message waits after an operation although a consumer could have taken it;
//! 5. after a channel or connection is closed, what it held is not waiting again in its place, each exactly once;
//! 6. a publisher gets anything but one confirm for each publish, gets it before every sink has replied, or gets one
//!    for a message that one of its queues refused; or a `multiple` confirms others;
//! 7. a message stays longer than its time to live, its queue's limits or its queue's expiry allow, or goes earlier;
//! 8. with a backing: a token is reported twice or never, more is held than the window and the limit of
//!    unacknowledged messages allow, or anything is held without consumers;
//! 9. the counters or the memory differ from the model's sums, or are not zero at the end.

mod backing;
mod consumers;
mod machine;

use super::Settings;
use crate::message::Message;

const SETTINGS: Settings =
    Settings { memory_limit: 1 << 30, output_window: 1 << 30, delivery_limit: 1_000_000 };

/// What a model keeps of a consumer.
struct ConsumerModel {
    queue: usize,
    prefetch: u16,
    no_ack: bool,
}

/// The number of a message, which its body begins or ends with.
fn number_of(message: &Message) -> u64 {
    std::str::from_utf8(message.body()).unwrap().trim().parse().unwrap()
}
