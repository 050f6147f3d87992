//! Checks the core's actions against the expected ones, and its counters and memory against the model's.

use super::*;

impl Machine {
    /// Takes the actions as clients, sinks and the embedder would.
    pub(super) fn check_actions(&mut self) {
        for effect in std::mem::take(&mut self.core.actions) {
            match effect {
                Action::Send(connection, output) => {
                    let at = self
                        .connections
                        .iter()
                        .position(|it| *it == connection)
                        .expect("to an open connection");
                    self.check_output(at, output);
                }
                Action::Offer { queue: key, ticket, message, .. } => {
                    let number = number_of(&message);
                    let queue = self.queues.iter().position(|it| it.key == key).expect("a queue that exists");
                    // In any order: the core's is that of its keys.
                    let offer = (queue, number);
                    let place = self.expected.offers.iter().position(|it| *it == offer).expect("matches");
                    self.expected.offers.remove(place);
                    let mut offers = self.offered.iter_mut();
                    let it =
                        offers.find(|it| (it.queue, it.number, it.ticket) == (queue, number, 0)).unwrap();
                    it.ticket = ticket;
                }
                Action::Confirmed { local, safe } => self.check_confirm((IN_PROCESS, local), safe),
                Action::GrantCredit { queue, window, messages, bytes } => {
                    assert_eq!(queue, self.queues[KEPT].key);
                    if self.embedder.credit.add(Credit { window, messages, bytes }) {
                        assert_eq!(self.embedder.open, None, "a window within a window");
                        self.embedder.open = Some(window);
                        self.embedder.fed_up_to = 0;
                    }
                    assert_eq!(self.embedder.open, Some(window));
                }
                Action::Ended { queue, window, unacknowledged } => {
                    assert_eq!(queue, self.queues[KEPT].key);
                    assert_eq!(self.embedder.open.take(), Some(window));
                    self.drop_expired(KEPT);
                    let forgotten = std::mem::take(&mut self.queues[KEPT].waiting);
                    self.expected_counts.forgotten += forgotten.len() as u64;
                    let again: Vec<u64> =
                        forgotten.values().filter(|it| it.redelivered).map(|it| it.token).collect();
                    assert_eq!(unacknowledged, again);
                    for token in again {
                        self.embedder.store.get_mut(&token).expect("stored").1 = true;
                    }
                }
                Action::Acknowledged { queue, token, .. } => {
                    assert_eq!(queue, self.queues[KEPT].key);
                    settle_token(&mut self.expected.acknowledged, &mut self.embedder, token)
                }
                Action::Dropped { queue, token, why } => {
                    assert_eq!(queue, self.queues[KEPT].key);
                    assert_ne!(why, DropReason::Overflow, "a window has no length limit");
                    self.drop_expired(KEPT);
                    settle_token(&mut self.expected.dropped, &mut self.embedder, token);
                }
                Action::Deleted(_) | Action::Discard(_) => {}
                Action::Resume(_) => panic!("nobody was paused"),
            }
        }
    }

    pub(super) fn check_output(&mut self, connection: usize, output: Output) {
        match output {
            Output::Deliver { channel, consumer, tag, redelivered, message } => {
                let at = 2 * connection + usize::from(channel) - 1;
                let consumer_model = self.channels[at].consumers.get(&*consumer).expect("to a consumer");
                let (queue, no_ack) = (consumer_model.queue, consumer_model.no_ack);
                let (position, copy) = self.take(queue, &message, redelivered);
                if no_ack {
                    self.expected_counts.acknowledged += 1;
                    self.expected.acknowledged.extend((queue == KEPT).then_some(copy.token));
                } else {
                    let incarnation = self.queues[queue].incarnation;
                    let held =
                        Held { queue, incarnation, position, copy, consumer: Some(consumer.to_string()) };
                    assert!(self.channels[at].held.insert(tag, held).is_none());
                }
            }
            Output::Return { message, .. } => {
                let number = number_of(&message);
                let place =
                    self.expected.returns.iter().position(|it| *it == number).expect("to be returned");
                self.expected.returns.remove(place);
            }
            Output::Confirm { channel, first, last, safe, whole } => {
                assert_eq!((connection, channel, first), (0, 1, last));
                assert!(self.expected.returns.is_empty(), "a return comes before its confirm");
                let below = self.open.keys().any(|it| it.0 == 0 && it.1 < first);
                assert_eq!(whole, !below, "{first} would speak for others");
                self.check_confirm((0, first), safe);
            }
            other => panic!("not asked for: {other:?}"),
        }
    }

    pub(super) fn check_confirm(&mut self, reply: (usize, u64), safe: bool) {
        let place =
            self.expected.answers.iter().position(|it| it.0 == reply).expect("one answer to each publish");
        assert_eq!(self.expected.answers.remove(place).1, safe, "the answer to {reply:?}");
    }

    pub(super) fn end_of_operation(&mut self) {
        for queue in 0..QUEUES.len() {
            self.drop_expired(queue);
            let model = &mut self.queues[queue];
            if std::mem::take(&mut model.pushed) {
                while model.attributes.max_length.is_some_and(|it| model.waiting.len() > it)
                    || model
                        .attributes
                        .max_bytes
                        .is_some_and(|it| model.waiting.values().map(|it| it.bytes).sum::<usize>() > it)
                {
                    model.waiting.pop_first();
                    self.expected_counts.dropped += 1;
                }
            }
            self.drop_expired(queue);
        }
        // Everything is written at once here; the model `consumers` looks at that more closely.
        for connection in self.connections.clone() {
            self.core.written(connection, usize::MAX);
        }
        self.check_actions();
        let expected = &self.expected;
        assert!(
            expected.offers.is_empty() && expected.answers.is_empty() && expected.returns.is_empty(),
            "not done"
        );
        assert!(
            expected.acknowledged.is_empty() && expected.dropped.is_empty(),
            "not reported to the embedder"
        );
    }

    pub(super) fn check(&self) {
        let waiting: usize = self.queues.iter().map(|it| it.waiting.len()).sum();
        let held = || self.channels.iter().flat_map(|it| it.held.values());
        let counts = self.core.counts;
        assert_eq!((counts.ready, counts.unacknowledged), (waiting, held().count()));
        let sums = &self.expected_counts;
        assert_eq!(
            (counts.published, counts.unroutable, counts.refused, counts.fed),
            (sums.published, sums.unroutable, sums.refused, sums.fed)
        );
        assert_eq!(
            (counts.acknowledged, counts.dropped, counts.forgotten),
            (sums.acknowledged, sums.dropped, sums.forgotten)
        );
        let gone = sums.acknowledged + sums.dropped + sums.forgotten;
        assert_eq!(sums.put + sums.fed, gone + (waiting + held().count()) as u64, "the counters add up");
        let alive = |queue: usize, incarnation: u64| {
            self.queues[queue].alive && self.queues[queue].incarnation == incarnation
        };
        let memory: usize =
            self.queues.iter().flat_map(|it| it.waiting.values()).map(|it| it.weight).sum::<usize>()
                + held().filter(|it| alive(it.queue, it.incarnation)).map(|it| it.copy.weight).sum::<usize>()
                + self
                    .offered
                    .iter()
                    .filter(|it| alive(it.queue, it.incarnation))
                    .map(|it| it.weight)
                    .sum::<usize>();
        assert_eq!(self.core.sizes().memory, memory);
        self.check_consumers();
        let kept = &self.queues[KEPT];
        let out = held().filter(|it| it.queue == KEPT).count();
        assert!(kept.waiting.len() <= WINDOW.messages + UNSETTLED.messages);
        if self.consumers(KEPT) > 0 {
            assert!(self.embedder.open.is_some(), "a consumer without a window");
        } else if out == 0 {
            assert_eq!((self.embedder.open, kept.waiting.len()), (None, 0), "held without a consumer");
        }
    }

    /// No message waits that a consumer could take.
    pub(super) fn check_consumers(&self) {
        for channel_model in &self.channels {
            for (tag, consumer_model) in &channel_model.consumers {
                let out = channel_model.held.values().filter(|it| it.consumer.as_ref() == Some(tag)).count();
                let limit = usize::from(consumer_model.prefetch);
                assert!(consumer_model.no_ack || limit == 0 || out <= limit);
                let of_queue = self.channels.iter().flat_map(|it| it.held.values());
                let of_queue = of_queue.filter(|it| it.queue == consumer_model.queue).count();
                let may = consumer_model.queue != KEPT || of_queue < UNSETTLED.messages;
                let free = (consumer_model.no_ack || limit == 0 || out < limit) && may;
                assert!(
                    !free || self.queues[consumer_model.queue].waiting.is_empty(),
                    "{tag} could have taken one"
                );
            }
        }
    }

    /// Replies to, feeds and consumes everything, and checks that nothing is left.
    pub(super) fn finish(&mut self) {
        while !self.offered.is_empty() {
            self.apply(&Step::PublishReply { which: 0, safe: true });
        }
        for connection in 0..3 {
            self.apply(&Step::CloseConnection { connection });
        }
        for queue in 0..QUEUES.len() {
            if self.queues[queue].alive {
                self.apply(&Step::Consume { channel: 2, queue, prefetch: 1, no_ack: false });
            }
        }
        self.apply(&Step::Feed);
        while !self.channels[2].held.is_empty() || !self.embedder.store.is_empty() {
            let before = (self.channels[2].held.len(), self.embedder.store.len());
            self.apply(&Step::Settle { channel: 2, which: 0, multiple: true, verdict: 0 });
            self.apply(&Step::Feed);
            assert!(before != (0, self.embedder.store.len()), "never fed: {:?}", self.embedder.store.keys());
        }
        let sizes = self.core.sizes();
        assert_eq!((self.core.counts.ready, self.core.counts.unacknowledged, sizes.memory), (0, 0, 0));
        assert!(self.open.is_empty() && self.core.local_open.is_empty());
        assert_eq!(self.core.tickets.len(), 0);
    }
}

/// Removes a token that was reported from the embedder's store; each only once.
fn settle_token(expected: &mut Vec<u64>, embedder: &mut EmbedderModel, token: u64) {
    let index = expected.iter().position(|it| *it == token).expect("a token that was settled");
    expected.remove(index);
    assert!(embedder.store.remove(&token).is_some(), "{token} was reported twice");
}
