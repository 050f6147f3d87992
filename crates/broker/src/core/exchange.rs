//! Exchanges, bindings and routing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::topic::Topics;
use super::{Core, Error, ExchangeKey, QueueKey};
use crate::declaration::ExchangeKind;

/// Where a binding leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Queue(QueueKey),
    Exchange(ExchangeKey),
}

/// What a declaration must repeat to be the same exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExchangeAttributes {
    pub(crate) kind: ExchangeKind,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    /// Clients may not publish into it.
    pub(crate) internal: bool,
}

pub(crate) struct Exchange {
    pub(crate) name: Arc<str>,
    pub(crate) attributes: ExchangeAttributes,
    table: Table,
    bindings: HashSet<(Target, Box<str>)>,
    /// Bindings that lead from other exchanges to this one.
    sources: Vec<(ExchangeKey, Box<str>)>,
}

enum Table {
    Direct(HashMap<Box<str>, Vec<Target>>),
    Topic(Topics<Target>),
    Fanout(Vec<Target>),
}

impl Exchange {
    fn new(name: Arc<str>, attributes: ExchangeAttributes) -> Exchange {
        let table = match attributes.kind {
            ExchangeKind::Direct => Table::Direct(HashMap::new()),
            ExchangeKind::Topic => Table::Topic(Topics::default()),
            ExchangeKind::Fanout => Table::Fanout(Vec::new()),
        };
        Exchange { name, attributes, table, bindings: HashSet::new(), sources: Vec::new() }
    }

    pub(crate) fn is_used(&self) -> bool {
        !self.bindings.is_empty()
    }

    fn bind(&mut self, target: Target, key: &str) -> bool {
        if !self.bindings.insert((target, key.into())) {
            return false;
        }
        match &mut self.table {
            Table::Direct(table) => table.entry(key.into()).or_default().push(target),
            Table::Topic(topics) => topics.insert(key, target),
            Table::Fanout(targets) => targets.push(target),
        }
        true
    }

    fn unbind(&mut self, target: Target, key: &str) -> bool {
        if !self.bindings.remove(&(target, Box::from(key))) {
            return false;
        }
        let drop_one = |targets: &mut Vec<Target>| {
            if let Some(index) = targets.iter().position(|it| *it == target) {
                targets.swap_remove(index);
            }
        };
        match &mut self.table {
            Table::Direct(table) => {
                if let Some(targets) = table.get_mut(key) {
                    drop_one(targets);
                    if targets.is_empty() {
                        table.remove(key);
                    }
                }
            }
            Table::Topic(topics) => topics.remove(key, target),
            Table::Fanout(targets) => drop_one(targets),
        }
        true
    }

    fn route(&self, key: &str, found: &mut impl FnMut(Target)) {
        match &self.table {
            Table::Direct(table) => table.get(key).into_iter().flatten().copied().for_each(found),
            Table::Topic(topics) => topics.route(key, found),
            Table::Fanout(targets) => targets.iter().copied().for_each(found),
        }
    }
}

impl Core {
    pub(crate) fn exchange(&self, name: &str) -> Option<&Exchange> {
        self.exchange_names.get(name).and_then(|key| self.exchanges.get(*key))
    }

    /// `Ok` also when the exchange exists with the same attributes.
    pub(crate) fn declare_exchange(
        &mut self,
        name: &str,
        attributes: ExchangeAttributes,
    ) -> Result<(), Error> {
        match self.exchange(name) {
            Some(it) if it.attributes == attributes => Ok(()),
            Some(it) => Err(Error::Different {
                what: match () {
                    () if it.attributes.kind != attributes.kind => "type",
                    () if it.attributes.durable != attributes.durable => "durable",
                    () if it.attributes.auto_delete != attributes.auto_delete => "auto_delete",
                    () => "internal",
                },
            }),
            None => {
                let name: Arc<str> = name.into();
                let key = self.exchanges.insert(Exchange::new(name.clone(), attributes));
                self.exchange_names.insert(name, key);
                Ok(())
            }
        }
    }

    pub(crate) fn delete_exchange(&mut self, name: &str, if_unused: bool) -> Result<bool, Error> {
        let Some(key) = self.exchange_names.get(name).copied() else { return Ok(false) };
        if if_unused && self.exchanges.get(key).is_some_and(Exchange::is_used) {
            return Err(Error::StillUsed);
        }
        self.drop_exchange(key);
        Ok(true)
    }

    fn drop_exchange(&mut self, key: ExchangeKey) {
        let Some(exchange) = self.exchanges.remove(key) else { return };
        self.exchange_names.remove(&exchange.name);
        // Once per target: one may be bound a hundred thousand times.
        let targets: HashSet<Target> = exchange.bindings.into_iter().map(|it| it.0).collect();
        for target in targets {
            match target {
                Target::Queue(queue) => {
                    if let Some(queue) = self.queues.get_mut(queue) {
                        queue.bindings.retain(|it| it.0 != key);
                    }
                }
                Target::Exchange(other) => {
                    if let Some(other) = self.exchanges.get_mut(other) {
                        other.sources.retain(|it| it.0 != key);
                    }
                }
            }
        }
        for (source, routing_key) in exchange.sources {
            self.remove_binding(source, Target::Exchange(key), &routing_key);
        }
    }

    fn target_of_queue(&self, name: &str) -> Result<Target, Error> {
        self.queue_names.get(name).map(|it| Target::Queue(*it)).ok_or(Error::NoQueue)
    }

    fn exchange_key(&self, name: &str) -> Result<ExchangeKey, Error> {
        self.exchange_names.get(name).copied().ok_or(Error::NoExchange)
    }

    pub(crate) fn bind_queue(&mut self, queue: &str, exchange: &str, key: &str) -> Result<(), Error> {
        let target = self.target_of_queue(queue)?;
        let source = self.exchange_key(exchange)?;
        self.add_binding(source, target, key);
        Ok(())
    }

    pub(crate) fn unbind_queue(&mut self, queue: &str, exchange: &str, key: &str) -> Result<(), Error> {
        let target = self.target_of_queue(queue)?;
        let source = self.exchange_key(exchange)?;
        self.remove_binding(source, target, key);
        Ok(())
    }

    pub(crate) fn bind_exchange(&mut self, destination: &str, source: &str, key: &str) -> Result<(), Error> {
        let target = Target::Exchange(self.exchange_key(destination)?);
        let source = self.exchange_key(source)?;
        self.add_binding(source, target, key);
        Ok(())
    }

    pub(crate) fn unbind_exchange(
        &mut self,
        destination: &str,
        source: &str,
        key: &str,
    ) -> Result<(), Error> {
        let target = Target::Exchange(self.exchange_key(destination)?);
        let source = self.exchange_key(source)?;
        self.remove_binding(source, target, key);
        Ok(())
    }

    fn add_binding(&mut self, source: ExchangeKey, target: Target, key: &str) {
        let Some(exchange) = self.exchanges.get_mut(source) else { return };
        if !exchange.bind(target, key) {
            return;
        }
        match target {
            Target::Queue(queue) => {
                if let Some(queue) = self.queues.get_mut(queue) {
                    queue.bindings.push((source, key.into()));
                }
            }
            Target::Exchange(other) => {
                if let Some(other) = self.exchanges.get_mut(other) {
                    other.sources.push((source, key.into()));
                }
            }
        }
    }

    /// Also deletes an auto-delete exchange with its last binding.
    pub(crate) fn remove_binding(&mut self, source: ExchangeKey, target: Target, key: &str) {
        let Some(exchange) = self.exchanges.get_mut(source) else { return };
        if !exchange.unbind(target, key) {
            return;
        }
        let abandoned = exchange.attributes.auto_delete && !exchange.is_used();
        match target {
            Target::Queue(queue) => {
                if let Some(queue) = self.queues.get_mut(queue) {
                    queue.bindings.retain(|it| it.0 != source || *it.1 != *key);
                }
            }
            Target::Exchange(other) => {
                if let Some(other) = self.exchanges.get_mut(other) {
                    other.sources.retain(|it| it.0 != source || *it.1 != *key);
                }
            }
        }
        if abandoned {
            self.drop_exchange(source);
        }
    }

    /// Fills `queues` with the queues that a message matches, each once.
    pub(super) fn route(&self, exchange: &str, key: &str, queues: &mut Vec<QueueKey>) -> Result<(), Error> {
        queues.clear();
        if exchange.is_empty() {
            queues.extend(self.queue_names.get(key));
            return Ok(());
        }
        let first = self.exchange_key(exchange)?;
        let mut further: Vec<ExchangeKey> = Vec::new();
        let mut visited: Vec<ExchangeKey> = Vec::new();
        let mut current = Some(first);
        while let Some(at) = current {
            if let Some(exchange) = self.exchanges.get(at) {
                exchange.route(key, &mut |target| match target {
                    Target::Queue(queue) => queues.push(queue),
                    Target::Exchange(other) => further.push(other),
                });
            }
            if further.is_empty() && visited.is_empty() {
                break;
            }
            visited.push(at);
            current = None;
            while let Some(next) = further.pop() {
                if !visited.contains(&next) {
                    current = Some(next);
                    break;
                }
            }
        }
        if queues.len() > 1 {
            queues.sort_unstable();
            queues.dedup();
        }
        Ok(())
    }
}
