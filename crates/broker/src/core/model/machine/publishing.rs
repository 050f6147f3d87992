//! Publishing: routing, queues, sinks, confirms, and what the embedder feeds.

use super::*;

impl Machine {
    /// Routes by the definition, without tables and tries.
    pub(super) fn route(
        &self,
        exchange: usize,
        key: &str,
        seen: &mut BTreeSet<usize>,
        queues: &mut BTreeSet<usize>,
    ) {
        if !seen.insert(exchange) {
            return;
        }
        for (source, target, pattern) in &self.bindings {
            let pattern = KEYS[*pattern];
            let matches = match EXCHANGES[exchange].1 {
                ExchangeKind::Direct => pattern == key,
                ExchangeKind::Fanout => true,
                ExchangeKind::Topic => match pattern {
                    "a.#" => key == "a" || key.starts_with("a."),
                    "*.b" => key.ends_with(".b") && key.matches('.').count() == 1,
                    pattern => pattern == key,
                },
            };
            if *source == exchange && matches {
                match target {
                    Target::Queue(it) => drop(queues.insert(*it)),
                    Target::Exchange(it) => self.route(*it, key, seen, queues),
                }
            }
        }
    }

    pub(super) fn publish(&mut self, it: &Publish) {
        self.numbers += 1;
        let (number, key) = (self.numbers, KEYS[it.key]);
        let mut queues = BTreeSet::new();
        let exchange = match EXCHANGES.get(it.exchange) {
            Some((name, _)) => {
                self.route(it.exchange, key, &mut BTreeSet::new(), &mut queues);
                *name
            }
            None => {
                queues.extend(QUEUES.iter().position(|it| *it == key));
                ""
            }
        };
        queues.retain(|it| self.queues[*it].alive);
        let mut properties = Properties::default().with_delivery_mode(if it.persistent { 2 } else { 1 });
        if let Some(expiration) = it.expiration {
            properties = properties.with_expiration(expiration.to_string().into());
        }
        let body = format!("{number:>0$}", 6 + it.size);
        let message = Arc::new(Message::new(exchange, key, &properties, body).unwrap());
        self.expected_counts.published += 1;
        let reply = (it.publisher != 1).then(|| {
            self.published[it.publisher] += 1;
            (it.publisher, self.published[it.publisher])
        });
        let from = match it.publisher {
            IN_PROCESS => Publisher::Local(self.published[IN_PROCESS]),
            channel => Publisher::Channel(self.channels[channel].key),
        };
        if queues.is_empty() {
            self.expected_counts.unroutable += 1;
            self.expected.returns.extend((it.mandatory && it.publisher != IN_PROCESS).then_some(number));
        }
        let (mut waiting, mut refused) = (0, 0);
        for queue in &queues {
            let model = &mut self.queues[*queue];
            let size = message.body().len();
            let bytes: usize = model.waiting.values().map(|it| it.bytes).sum();
            let full = model.attributes.max_length.is_some_and(|it| model.waiting.len() >= it)
                || model.attributes.max_bytes.is_some_and(|it| bytes + size > it);
            let could_be_lost = reply.is_some() && model.attributes.durable && it.persistent;
            if model.sink {
                waiting += 1;
                self.expected.offers.push((*queue, number));
                self.offered.push(Offered {
                    queue: *queue,
                    incarnation: model.incarnation,
                    ticket: 0,
                    number,
                    weight: message.weight(),
                    message: message.clone(),
                    reply,
                });
            } else if could_be_lost || (full && model.attributes.overflow == Overflow::RejectPublish) {
                refused += 1;
            } else {
                self.expected_counts.put += 1;
                self.put(*queue, &message, number, 0, false);
            }
        }
        self.expected_counts.refused += refused;
        if let Some(reply) = reply {
            if waiting > 0 {
                self.open.insert(reply, (waiting, refused > 0));
            } else {
                self.expected.answers.push((reply, refused == 0));
            }
        }
        let routed = self.core.publish(from, message, it.mandatory);
        assert_eq!(routed, Ok(queues.len()));
    }

    pub(super) fn put(
        &mut self,
        queue: usize,
        message: &Message,
        number: u64,
        token: u64,
        redelivered: bool,
    ) {
        let model = &mut self.queues[queue];
        let ttl = [model.attributes.message_ttl, message.expiration()].into_iter().flatten().min();
        let copy = QueuedCopy {
            number,
            expires: ttl.map_or(u64::MAX, |it| self.now + it),
            bytes: message.body().len(),
            weight: message.weight(),
            redelivered,
            returns: 0,
            token,
        };
        model.waiting.insert(model.next, copy);
        model.next += 1;
        model.pushed |= queue != KEPT;
    }

    pub(super) fn answer(&mut self, which: usize, safe: bool) {
        if self.offered.is_empty() {
            return;
        }
        let offered = self.offered.remove(which % self.offered.len());
        self.expected_counts.refused += u64::from(!safe);
        if let Some(reply) = offered.reply {
            let open = self.open.get_mut(&reply).unwrap();
            open.0 -= 1;
            open.1 |= !safe;
            if open.0 == 0 {
                self.expected.answers.push((reply, !open.1));
                self.open.remove(&reply);
            }
        }
        if safe && offered.queue == KEPT {
            self.embedder.tokens += 1;
            self.embedder.store.insert(self.embedder.tokens, (offered.message, false));
        }
        self.core.settle_tickets(&[offered.ticket], safe);
    }

    /// The embedder feeds, some time after it was granted credit.
    pub(super) fn feed(&mut self) {
        let mut batch = Vec::new();
        let mut taken = Vec::new();
        for (token, (message, redelivered)) in self.embedder.store.range(self.embedder.fed_up_to + 1..) {
            if !self.embedder.credit.take(message.body().len()) {
                break;
            }
            taken.push((*token, message.clone(), *redelivered));
            batch.push(StoredMessage {
                token: *token,
                message: (**message).clone(),
                redelivered: *redelivered,
            });
        }
        if batch.is_empty() {
            return;
        }
        self.embedder.fed_up_to = taken.last().unwrap().0;
        let window = self.embedder.credit.window();
        let fresh = self.embedder.open == Some(window);
        if fresh {
            self.expected_counts.fed += taken.len() as u64;
            for (token, message, redelivered) in taken {
                self.put(KEPT, &message, number_of(&message), token, redelivered);
            }
        } else {
            self.embedder.credit.close();
        }
        let fed = self.core.feed(QUEUES[KEPT], window, batch);
        assert_eq!(fed, if fresh { Ok(()) } else { Err(Error::WindowEnded) });
    }
}
