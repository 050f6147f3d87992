//! What becomes of a message that somebody holds, and of one whose time is over.

use super::*;

impl Machine {
    pub(super) fn get(&mut self, channel: usize, queue: usize) {
        let got = self.core.get(self.sides[channel].key, QUEUES[queue], false);
        if !self.lines[queue].alive {
            assert!(matches!(got, Err(Error::NoQueue)));
            return;
        }
        self.lines[queue].used = self.now;
        match got.unwrap() {
            None => assert!(self.lines[queue].waiting.is_empty()),
            Some(got) => {
                let (position, copy) = self.take(queue, &got.message, got.redelivered);
                assert_eq!(got.remaining as usize, self.lines[queue].waiting.len());
                let life = self.lines[queue].life;
                let held = Held { queue, life, position, copy, consumer: None };
                self.sides[channel].held.insert(got.tag, held);
            }
        }
    }

    pub(super) fn settle(&mut self, channel: usize, which: usize, multiple: bool, verdict: u8) {
        let side = &mut self.sides[channel];
        let Some(tag) = side.held.keys().nth(which).copied() else {
            let nothing = self.core.settle_delivery(side.key, 1 << 40, multiple, Verdict::Acknowledge);
            assert_eq!(nothing, Err(Error::UnknownTag));
            return;
        };
        let verdict =
            [Verdict::Acknowledge, Verdict::Acknowledge, Verdict::Requeue, Verdict::Drop][verdict as usize];
        let all: Vec<u64> =
            side.held.keys().copied().filter(|it| *it == tag || (multiple && *it < tag)).collect();
        let key = side.key;
        for tag in all {
            let held = self.sides[channel].held.remove(&tag).unwrap();
            let kept = held.queue == KEPT;
            match verdict {
                Verdict::Acknowledge => {
                    self.sums.acknowledged += 1;
                    self.due.acknowledged.extend(kept.then_some(held.copy.token));
                }
                Verdict::Drop => {
                    self.sums.dropped += 1;
                    self.due.dropped.extend(kept.then_some(held.copy.token));
                }
                Verdict::Requeue => self.give_back(held, true),
            }
        }
        self.core.settle_delivery(key, tag, multiple, verdict).unwrap();
    }

    pub(super) fn give_back(&mut self, mut held: Held, by_choice: bool) {
        let line = &mut self.lines[held.queue];
        held.copy.redelivered = true;
        held.copy.returns += u32::from(by_choice);
        let limit = line.attributes.delivery_limit.unwrap_or(SETTINGS.delivery_limit);
        if !line.alive || line.life != held.life {
            self.sums.dropped += 1;
        } else if held.copy.returns > limit {
            self.sums.dropped += 1;
            self.due.dropped.extend((held.queue == KEPT).then_some(held.copy.token));
        } else {
            assert!(line.waiting.insert(held.position, held.copy).is_none());
        }
    }

    /// Channels that are gone: first all their consumers, then what they held.
    pub(super) fn lose(&mut self, channels: &[usize]) {
        for channel in channels {
            for taker in std::mem::take(&mut self.sides[*channel].takers).into_values() {
                self.left(taker.queue);
            }
        }
        for channel in channels {
            for held in std::mem::take(&mut self.sides[*channel].held).into_values() {
                self.give_back(held, false);
            }
        }
    }

    pub(super) fn left(&mut self, queue: usize) {
        self.lines[queue].used = self.now;
        if self.lines[queue].alive && self.lines[queue].attributes.auto_delete && self.consumers(queue) == 0 {
            self.die(queue);
        }
    }

    pub(super) fn die(&mut self, queue: usize) {
        let line = &mut self.lines[queue];
        line.alive = false;
        self.sums.dropped += line.waiting.len() as u64;
        line.waiting.clear();
        self.bindings.retain(|it| it.1 != Target::Queue(queue));
    }

    pub(super) fn drop_expired(&mut self, queue: usize) {
        let line = &mut self.lines[queue];
        while let Some(head) = line.waiting.first_entry()
            && head.get().expires < self.now
        {
            let copy = head.remove();
            self.sums.dropped += 1;
            self.due.dropped.extend((queue == KEPT).then_some(copy.token));
        }
    }

    /// A message leaves its queue.
    pub(super) fn take(&mut self, queue: usize, message: &Message, redelivered: bool) -> (u64, Copy) {
        self.drop_expired(queue);
        let (position, copy) = self.lines[queue].waiting.pop_first().expect("something waits");
        assert_eq!(copy.number, number_of(message), "not the oldest that waits in {}", QUEUES[queue]);
        assert_eq!(copy.redelivered, redelivered, "redelivered flag of {}", copy.number);
        (position, copy)
    }
}
