//! What the core was seen to do against what was due, and its counters and memory against the sums of the model.

use super::*;

impl Machine {
    /// Reads the actions as clients, sinks and the owner would.
    pub(super) fn follow(&mut self) {
        for effect in std::mem::take(&mut self.core.actions) {
            match effect {
                Action::Send(connection, output) => {
                    let at = self.connections.iter().position(|it| *it == connection).expect("to the living");
                    self.hear(at, output);
                }
                Action::Offer { ticket, message, .. } => {
                    let number = number_of(&message);
                    let place = self.due.offers.iter().position(|it| it.1 == number).expect("matches");
                    let (queue, _) = self.due.offers.remove(place).unwrap();
                    let mut offers = self.offered.iter_mut();
                    let it =
                        offers.find(|it| (it.queue, it.number, it.ticket) == (queue, number, 0)).unwrap();
                    it.ticket = ticket;
                }
                Action::Confirmed { local, safe } => self.hear_answer((IN_PROCESS, local), safe),
                Action::GrantCredit { window, messages, bytes, .. } => {
                    if self.owner.credit.add(Credit { window, messages, bytes }) {
                        assert_eq!(self.owner.open, None, "a window within a window");
                        self.owner.open = Some(window);
                        self.owner.fed_up_to = 0;
                    }
                    assert_eq!(self.owner.open, Some(window));
                }
                Action::Ended { window, unacknowledged, .. } => {
                    assert_eq!(self.owner.open.take(), Some(window));
                    self.drop_expired(KEPT);
                    let forgotten = std::mem::take(&mut self.lines[KEPT].waiting);
                    self.sums.forgotten += forgotten.len() as u64;
                    let again: Vec<u64> =
                        forgotten.values().filter(|it| it.redelivered).map(|it| it.token).collect();
                    assert_eq!(unacknowledged, again);
                    for token in again {
                        self.owner.store.get_mut(&token).expect("the owner's").1 = true;
                    }
                }
                Action::Acknowledged { token, .. } => {
                    settle_token(&mut self.due.acknowledged, &mut self.owner, token)
                }
                Action::Dropped { token, why, .. } => {
                    assert_ne!(why, DropReason::Overflow, "a window has no length limit");
                    self.drop_expired(KEPT);
                    settle_token(&mut self.due.dropped, &mut self.owner, token);
                }
                Action::Deleted(_) | Action::Discard(_) => {}
                Action::Resume(_) => panic!("nobody was paused"),
            }
        }
    }

    pub(super) fn hear(&mut self, connection: usize, output: Output) {
        match output {
            Output::Deliver { channel, consumer, tag, redelivered, message } => {
                let at = 2 * connection + usize::from(channel) - 1;
                let taker = self.sides[at].takers.get(&*consumer).expect("to a consumer");
                let (queue, no_ack) = (taker.queue, taker.no_ack);
                let (position, copy) = self.take(queue, &message, redelivered);
                if no_ack {
                    self.sums.acknowledged += 1;
                    self.due.acknowledged.extend((queue == KEPT).then_some(copy.token));
                } else {
                    let life = self.lines[queue].life;
                    let held = Held { queue, life, position, copy, consumer: Some(consumer.to_string()) };
                    assert!(self.sides[at].held.insert(tag, held).is_none());
                }
            }
            Output::Return { message, .. } => {
                let number = number_of(&message);
                let place = self.due.returns.iter().position(|it| *it == number).expect("to be returned");
                self.due.returns.remove(place);
            }
            Output::Confirm { channel, first, last, safe, whole } => {
                assert_eq!((connection, channel, first), (0, 1, last));
                assert!(self.due.returns.is_empty(), "a return comes before its confirm");
                let below = self.open.keys().any(|it| it.0 == 0 && it.1 < first);
                assert_eq!(whole, !below, "{first} would speak for others");
                self.hear_answer((0, first), safe);
            }
            other => panic!("not asked for: {other:?}"),
        }
    }

    pub(super) fn hear_answer(&mut self, reply: (usize, u64), safe: bool) {
        let place = self.due.answers.iter().position(|it| it.0 == reply).expect("one answer to each publish");
        assert_eq!(self.due.answers.remove(place).1, safe, "the answer to {reply:?}");
    }

    pub(super) fn end_of_operation(&mut self) {
        for queue in 0..QUEUES.len() {
            self.drop_expired(queue);
            let line = &mut self.lines[queue];
            if std::mem::take(&mut line.pushed) {
                while line.attributes.max_length.is_some_and(|it| line.waiting.len() > it)
                    || line
                        .attributes
                        .max_bytes
                        .is_some_and(|it| line.waiting.values().map(|it| it.bytes).sum::<usize>() > it)
                {
                    line.waiting.pop_first();
                    self.sums.dropped += 1;
                }
            }
            self.drop_expired(queue);
        }
        // What was written is no memory any more; the third world looks at that more closely.
        for connection in self.connections.clone() {
            self.core.written(connection, usize::MAX);
        }
        self.follow();
        let due = &self.due;
        assert!(due.offers.is_empty() && due.answers.is_empty() && due.returns.is_empty(), "not done");
        assert!(due.acknowledged.is_empty() && due.dropped.is_empty(), "the owner was not told");
    }

    pub(super) fn check(&self) {
        let waiting: usize = self.lines.iter().map(|it| it.waiting.len()).sum();
        let held = || self.sides.iter().flat_map(|it| it.held.values());
        let counts = self.core.counts;
        assert_eq!((counts.ready, counts.unacknowledged), (waiting, held().count()));
        let sums = &self.sums;
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
        let alive = |queue: usize, life: u64| self.lines[queue].alive && self.lines[queue].life == life;
        let memory: usize = self
            .lines
            .iter()
            .flat_map(|it| it.waiting.values())
            .map(|it| it.weight)
            .sum::<usize>()
            + held().filter(|it| alive(it.queue, it.life)).map(|it| it.copy.weight).sum::<usize>()
            + self.offered.iter().filter(|it| alive(it.queue, it.life)).map(|it| it.weight).sum::<usize>();
        assert_eq!(self.core.sizes().memory, memory);
        self.check_consumers();
        let kept = &self.lines[KEPT];
        let out = held().filter(|it| it.queue == KEPT).count();
        assert!(kept.waiting.len() <= WINDOW.messages + UNSETTLED.messages);
        if self.consumers(KEPT) > 0 {
            assert!(self.owner.open.is_some(), "a consumer without a window");
        } else if out == 0 {
            assert_eq!((self.owner.open, kept.waiting.len()), (None, 0), "held without a consumer");
        }
    }

    /// Nothing waits that somebody could have.
    pub(super) fn check_consumers(&self) {
        for side in &self.sides {
            for (tag, taker) in &side.takers {
                let out = side.held.values().filter(|it| it.consumer.as_ref() == Some(tag)).count();
                let limit = usize::from(taker.prefetch);
                assert!(taker.no_ack || limit == 0 || out <= limit);
                let of_queue = self.sides.iter().flat_map(|it| it.held.values());
                let of_queue = of_queue.filter(|it| it.queue == taker.queue).count();
                let may = taker.queue != KEPT || of_queue < UNSETTLED.messages;
                let free = (taker.no_ack || limit == 0 || out < limit) && may;
                assert!(!free || self.lines[taker.queue].waiting.is_empty(), "{tag} could have taken one");
            }
        }
    }

    /// Everything is answered, fed, consumed; nothing is left.
    pub(super) fn finish(&mut self) {
        while !self.offered.is_empty() {
            self.apply(&Step::PublishReply { which: 0, safe: true });
        }
        for connection in 0..3 {
            self.apply(&Step::CloseConnection { connection });
        }
        for queue in 0..QUEUES.len() {
            if self.lines[queue].alive {
                self.apply(&Step::Consume { channel: 2, queue, prefetch: 1, no_ack: false });
            }
        }
        self.apply(&Step::Feed);
        while !self.sides[2].held.is_empty() || !self.owner.store.is_empty() {
            let before = (self.sides[2].held.len(), self.owner.store.len());
            self.apply(&Step::Settle { channel: 2, which: 0, multiple: true, verdict: 0 });
            self.apply(&Step::Feed);
            assert!(before != (0, self.owner.store.len()), "never fed: {:?}", self.owner.store.keys());
        }
        let sizes = self.core.sizes();
        assert_eq!((self.core.counts.ready, self.core.counts.unacknowledged, sizes.memory), (0, 0, 0));
        assert!(self.open.is_empty() && self.core.local_open.is_empty());
        assert_eq!(self.core.tickets.len(), 0);
    }
}

/// The owner's store lets go of a token that it was told of, once.
fn settle_token(due: &mut Vec<u64>, owner: &mut Owner, token: u64) {
    let place = due.iter().position(|it| *it == token).expect("a token that was settled");
    due.remove(place);
    assert!(owner.store.remove(&token).is_some(), "{token} was answered twice");
}
