//! A model of one queue with a backing: what is fed, delivered, reported and forgotten.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{SETTINGS, number_of};
use crate::backing::{Credit, CreditBalance, StoredMessage};
use crate::core::*;
use crate::declaration::Window;
use crate::message::{Message, Properties};

#[derive(Clone, Debug)]
enum BackedStep {
    Add,
    Consume,
    Settle { which: usize, multiple: bool, verdict: u8 },
    Cancel,
    Vanish,
}

fn backed_step() -> impl Strategy<Value = BackedStep> {
    prop_oneof![
        6 => Just(BackedStep::Add),
        3 => Just(BackedStep::Consume),
        8 => (0usize..6, any::<bool>(), 0u8..4)
            .prop_map(|(which, multiple, verdict)| BackedStep::Settle { which, multiple, verdict }),
        1 => Just(BackedStep::Cancel),
        2 => Just(BackedStep::Vanish),
    ]
}

const WINDOW: Window = Window { messages: 5, bytes: 100 };
const UNSETTLED: Window = Window { messages: 7, bytes: 200 };

struct BackedQueue {
    core: Core,
    connection: ConnectionKey,
    channel: ChannelKey,
    consumers: Vec<String>,
    held: BTreeMap<u64, u64>,
    /// What the embedder has stored: what was not reported.
    store: BTreeSet<u64>,
    reported: BTreeSet<u64>,
    fed_up_to: u64,
    credit: CreditBalance,
    next: u64,
    largest: usize,
}

impl BackedQueue {
    fn new() -> BackedQueue {
        let mut core = Core::new(SETTINGS);
        core.declare_for_embedder(
            "q",
            Attributes::default(),
            Storage { sink: false, backing: Some((WINDOW, UNSETTLED)) },
        )
        .unwrap();
        let connection = core.open_connection(false);
        let channel = core.open_channel(connection, 1);
        BackedQueue {
            core,
            connection,
            channel,
            consumers: Vec::new(),
            held: BTreeMap::new(),
            store: BTreeSet::new(),
            reported: BTreeSet::new(),
            fed_up_to: 0,
            credit: CreditBalance::default(),
            next: 1,
            largest: 0,
        }
    }

    fn size(number: u64) -> usize {
        8 + (number as usize * 53) % 120
    }

    fn report(&mut self, token: u64) {
        assert!(self.store.remove(&token), "{token} was not in the store any more");
        assert!(self.reported.insert(token), "{token} was reported twice");
    }

    fn check_actions(&mut self) {
        while !self.core.actions.is_empty() {
            for effect in std::mem::take(&mut self.core.actions) {
                match effect {
                    Action::GrantCredit { window, messages, bytes, .. } => {
                        let fresh = self.credit.add(Credit { window, messages, bytes });
                        if fresh {
                            self.fed_up_to = 0;
                        }
                    }
                    Action::Acknowledged { token, .. } | Action::Dropped { token, .. } => self.report(token),
                    Action::Ended { window, unacknowledged, .. } => {
                        assert_eq!(window, self.credit.window());
                        assert!(unacknowledged.iter().all(|it| self.store.contains(it)));
                        self.credit.close();
                    }
                    Action::Send(_, Output::Deliver { tag, message, .. }) => {
                        let number = number_of(&message);
                        assert!(self.store.contains(&number));
                        assert!(!self.held.values().any(|it| *it == number), "{number} is held already");
                        self.held.insert(tag, number);
                    }
                    _ => {}
                }
            }
            self.feed();
        }
    }

    fn feed(&mut self) {
        let mut batch = Vec::new();
        for token in self.store.range(self.fed_up_to + 1..) {
            if !self.credit.take(BackedQueue::size(*token)) {
                break;
            }
            self.fed_up_to = *token;
            let body = format!("{:>1$}", token, BackedQueue::size(*token));
            self.largest = self.largest.max(body.len());
            let message = Message::new("", "q", &Properties::default(), body).unwrap();
            batch.push(StoredMessage { token: *token, message, redelivered: false });
        }
        if !batch.is_empty() {
            self.core.feed("q", self.credit.window(), batch).unwrap();
        }
    }

    fn apply(&mut self, step: &BackedStep) {
        match *step {
            BackedStep::Add => {
                self.store.insert(self.next);
                self.next += 1;
                self.feed();
            }
            BackedStep::Consume => {
                let tag = format!("c{}", self.next);
                let how = Consume { queue: "q", tag: tag.as_str().into(), no_ack: false, exclusive: false };
                if self.core.consume(self.channel, how).is_ok() {
                    self.consumers.push(tag);
                }
            }
            BackedStep::Settle { which, multiple, verdict } => {
                if let Some(tag) = self.held.keys().nth(which).copied() {
                    let verdict =
                        [Verdict::Acknowledge, Verdict::Acknowledge, Verdict::Requeue, Verdict::Drop]
                            [verdict as usize];
                    self.held.retain(|it, _| *it != tag && !(multiple && *it < tag));
                    self.core.settle_delivery(self.channel, tag, multiple, verdict).unwrap();
                }
            }
            BackedStep::Cancel => {
                if let Some(tag) = self.consumers.pop() {
                    self.core.cancel(self.channel, &tag);
                }
            }
            BackedStep::Vanish => {
                self.held.clear();
                self.consumers.clear();
                self.core.close_connection(self.connection);
                self.check_actions();
                let sizes = self.core.sizes();
                assert_eq!((sizes.memory, self.core.counts.ready), (0, 0), "held without a consumer");
                self.connection = self.core.open_connection(false);
                self.channel = self.core.open_channel(self.connection, 1);
            }
        }
        self.core.run();
        self.check_actions();
        let queue = self.core.queue("q").unwrap();
        // Requeued messages come on top of the window, and one message may exceed the byte limits.
        assert!(queue.unacknowledged <= UNSETTLED.messages);
        assert!(queue.unacknowledged_bytes <= UNSETTLED.bytes + self.largest);
        assert!(queue.ready.len() <= WINDOW.messages + UNSETTLED.messages);
        assert_eq!(queue.unacknowledged, self.held.len());
    }
}

proptest! {
    /// Fails in the ways 8 of the list in the parent module.
    #[test]
    fn a_window_reports_each_token_once(steps in prop::collection::vec(backed_step(), 0..120)) {
        let mut backed = BackedQueue::new();
        for step in &steps {
            backed.apply(step);
        }
        // A consumer that behaves empties the store.
        backed.apply(&BackedStep::Vanish);
        backed.apply(&BackedStep::Consume);
        while !backed.held.is_empty() {
            backed.apply(&BackedStep::Settle { which: 0, multiple: false, verdict: 0 });
        }
        prop_assert!(backed.store.is_empty(), "never fed: {:?}", backed.store);
        prop_assert_eq!(backed.reported.len() as u64, backed.next - 1);
    }
}
