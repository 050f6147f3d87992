//! Settling: what happens to unsettled deliveries, and to messages that expire.

use super::*;

impl Machine {
    pub(super) fn get(&mut self, channel: usize, queue: usize) {
        let got = self.core.get(self.channels[channel].key, QUEUES[queue], false);
        if !self.queues[queue].alive {
            assert!(matches!(got, Err(Error::NoQueue)));
            return;
        }
        self.queues[queue].used = self.now;
        match got.unwrap() {
            None => assert!(self.queues[queue].waiting.is_empty()),
            Some(got) => {
                let (position, copy) = self.take(queue, &got.message, got.redelivered);
                assert_eq!(got.remaining as usize, self.queues[queue].waiting.len());
                let incarnation = self.queues[queue].incarnation;
                let held = Held { queue, incarnation, position, copy, consumer: None };
                self.channels[channel].held.insert(got.tag, held);
            }
        }
    }

    pub(super) fn settle(&mut self, channel: usize, which: usize, multiple: bool, verdict: u8) {
        let channel_model = &mut self.channels[channel];
        let Some(tag) = channel_model.held.keys().nth(which).copied() else {
            let nothing =
                self.core.settle_delivery(channel_model.key, 1 << 40, multiple, Verdict::Acknowledge);
            assert_eq!(nothing, Err(Error::UnknownTag));
            return;
        };
        let verdict =
            [Verdict::Acknowledge, Verdict::Acknowledge, Verdict::Requeue, Verdict::Drop][verdict as usize];
        let all: Vec<u64> =
            channel_model.held.keys().copied().filter(|it| *it == tag || (multiple && *it < tag)).collect();
        let key = channel_model.key;
        for tag in all {
            let held = self.channels[channel].held.remove(&tag).unwrap();
            let kept = held.queue == KEPT;
            match verdict {
                Verdict::Acknowledge => {
                    self.expected_counts.acknowledged += 1;
                    self.expected.acknowledged.extend(kept.then_some(held.copy.token));
                }
                Verdict::Drop => {
                    self.expected_counts.dropped += 1;
                    self.expected.dropped.extend(kept.then_some(held.copy.token));
                }
                Verdict::Requeue => self.requeue(held, true),
            }
        }
        self.core.settle_delivery(key, tag, multiple, verdict).unwrap();
    }

    pub(super) fn requeue(&mut self, mut held: Held, by_consumer: bool) {
        let model = &mut self.queues[held.queue];
        held.copy.redelivered = true;
        held.copy.returns += u32::from(by_consumer);
        let limit = model.attributes.delivery_limit.unwrap_or(SETTINGS.delivery_limit);
        if !model.alive || model.incarnation != held.incarnation {
            self.expected_counts.dropped += 1;
        } else if held.copy.returns > limit {
            self.expected_counts.dropped += 1;
            self.expected.dropped.extend((held.queue == KEPT).then_some(held.copy.token));
        } else {
            assert!(model.waiting.insert(held.position, held.copy).is_none());
        }
    }

    /// Channels that are closed: first all their consumers are removed, then what they held is requeued.
    pub(super) fn lose_channels(&mut self, channels: &[usize]) {
        for channel in channels {
            for consumer_model in std::mem::take(&mut self.channels[*channel].consumers).into_values() {
                self.consumer_left(consumer_model.queue);
            }
        }
        for channel in channels {
            for held in std::mem::take(&mut self.channels[*channel].held).into_values() {
                self.requeue(held, false);
            }
        }
    }

    pub(super) fn consumer_left(&mut self, queue: usize) {
        self.queues[queue].used = self.now;
        if self.queues[queue].alive && self.queues[queue].attributes.auto_delete && self.consumers(queue) == 0
        {
            self.delete_queue(queue);
        }
    }

    pub(super) fn delete_queue(&mut self, queue: usize) {
        let model = &mut self.queues[queue];
        model.alive = false;
        self.expected_counts.dropped += model.waiting.len() as u64;
        model.waiting.clear();
        self.bindings.retain(|it| it.1 != Target::Queue(queue));
    }

    pub(super) fn drop_expired(&mut self, queue: usize) {
        let model = &mut self.queues[queue];
        while let Some(head) = model.waiting.first_entry()
            && head.get().expires < self.now
        {
            let copy = head.remove();
            self.expected_counts.dropped += 1;
            self.expected.dropped.extend((queue == KEPT).then_some(copy.token));
        }
    }

    /// A message leaves its queue.
    pub(super) fn take(&mut self, queue: usize, message: &Message, redelivered: bool) -> (u64, QueuedCopy) {
        self.drop_expired(queue);
        let (position, copy) = self.queues[queue].waiting.pop_first().expect("something waits");
        assert_eq!(copy.number, number_of(message), "not the oldest that waits in {}", QUEUES[queue]);
        assert_eq!(copy.redelivered, redelivered, "redelivered flag of {}", copy.number);
        (position, copy)
    }
}
