//! The event loop of a manager: waits for the next event, passes it to the core, performs the actions in order.

use std::collections::VecDeque;
use std::time::Duration;

use client::amqp::{self, Item, LinkEnd, PublishStatus};
use manager::audit::Session;
use manager::children::Serial;
use manager::core::{Action, Core, Event, Level, MappingOutcome, Now, Tag};
use manager::restart::State;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use wire::message::StatusReport;

use super::audit_log::{AuditLog, Trouble};
use super::document::ManageDocument;
use super::mapping::IdentityMapper;
use super::notice::Notices;
use super::orphans::{self, Orphans};
use super::processes::Processes;
use super::signals::{Asked, Listener};
use super::terminal::Terminals;
use super::{delivery, recording, registration, restart};
use crate::clock;
use crate::config::ManagerConfig;
use crate::directory::EndpointDir;
use crate::exit::Failure;
use crate::pid::{PidFile, PidFileWatch, WatchEvent};
use crate::title::Title;

/// How often deadlines are checked, and the time on the terminal is rewritten.
const TICK: Duration = Duration::from_secs(1);
/// How long the broker may take to confirm the last heartbeat and to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long notices may take at the end.
const NOTICES_PATIENCE: Duration = Duration::from_secs(5);

/// The parts of a running manager.
pub(super) struct Driver<'a> {
    pub(super) core: Core,
    pub(super) processes: Processes,
    pub(super) notices: Notices,
    /// `None`: this manager does not change users.
    pub(super) mapper: Option<IdentityMapper>,
    /// `None`: this manager keeps no audit log.
    pub(super) audit: Option<AuditLog>,
    /// Why this manager may run nothing: it ends what it took over.
    pub(super) unfit: Option<String>,
    pub(super) link: amqp::Handle,
    pub(super) link_events: mpsc::Receiver<amqp::Event>,
    pub(super) listener: Listener<'a>,
    pub(super) watch: PidFileWatch,
    pub(super) terminals: &'a Terminals,
    pub(super) title: Option<Title>,
    pub(super) period: Duration,
    pub(super) document: &'a mut ManageDocument,
    pub(super) endpoint: &'a EndpointDir,
    pub(super) config: &'a ManagerConfig,
}

/// How a manager's run ends.
pub(super) enum End {
    Stopped,
    /// The program is to be executed again.
    Restart(Box<Restart>),
}

/// What the next program needs. `processes` keep the descriptors open that the state names.
pub(super) struct Restart {
    pub(super) state: State,
    pub(super) processes: Processes,
    pub(super) pid_file: PidFile,
}

impl Driver<'_> {
    /// Runs until everything has ended. `session` is that of the link, if it has one.
    pub(super) async fn run(mut self, mut session: Option<u32>, pid_file: PidFile) -> Result<End, Failure> {
        let (outcomes, mut mapped) = mpsc::unbounded_channel();
        let mut next_session = session.unwrap_or_default().saturating_add(1);
        let mut heartbeats = interval(self.period);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = interval_at(Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let look = manager::mapping::watch::INTERVAL;
        let mut looks = interval_at(Instant::now() + look, look);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut orphans = Orphans::default();
        let mut orphan_looks = interval_at(Instant::now() + orphans::INTERVAL, orphans::INTERVAL);
        let orphans_come = Orphans::come_to_us();
        let mut renewal: Option<restart::Renewal> = None;
        let mut retired = false;
        let known: Vec<Serial> = self.core.children().iter().filter_map(|child| child.serial).collect();
        known
            .into_iter()
            .for_each(|serial| recording::record(&mut self.audit, &self.core, &mut self.processes, serial));
        // Children may have ended while the program was executed again, and revivals may wait.
        self.processes.reap();
        let first = match self.unfit.take() {
            Some(why) => {
                tracing::error!("nothing may run any more: {why}");
                Event::Stop
            }
            None => Event::Tick,
        };
        let mut actions = self.core.apply(first, &now());
        loop {
            // A launch that fails at once leads to further actions.
            let mut pending = VecDeque::from(std::mem::take(&mut actions));
            while let Some(action) = pending.pop_front() {
                match action {
                    Action::Finish => {
                        self.notices.finish(NOTICES_PATIENCE).await;
                        if let Some(audit) = self.audit.take() {
                            audit.finish(Session::Ends).await;
                        }
                        self.close().await;
                        drop(pid_file);
                        return Ok(End::Stopped);
                    }
                    Action::Retire => {
                        retired = true;
                        // Nothing is served any more. What these would tell must not count as a second stop.
                        renewal = None;
                        daemon::ready::stopping();
                        self.retire(session);
                    }
                    other => pending.extend(self.perform(other, &outcomes)),
                }
            }
            if self.core.may_restart() && !self.processes.has_news() {
                match restart::prepare(self.document, self.endpoint, &self.core, &self.processes).await {
                    Ok(state) => {
                        tracing::info!(
                            ".......... Manager hot restarting {} (task processors: {})",
                            self.document.registration.endpoint_id,
                            state.children.len()
                        );
                        self.notices.finish(NOTICES_PATIENCE).await;
                        if let Some(audit) = self.audit.take() {
                            audit.finish(Session::Restarts).await;
                        }
                        self.close().await;
                        let processes = self.processes;
                        return Ok(End::Restart(Box::new(Restart { state, processes, pid_file })));
                    }
                    Err(why) => {
                        tracing::error!("the manager is not restarted, and goes on as it was: {why}");
                    }
                }
                self.core.end_restart();
                actions = self.core.apply(Event::Tick, &now());
                continue;
            }
            let event = tokio::select! {
                biased;
                asked = self.listener.next() => match asked.map_err(Failure::error)? {
                    Asked::Stop => {
                        actions = self.core.apply(Event::Stop, &now());
                        continue;
                    }
                    Asked::Restart if retired => continue,
                    Asked::Restart => {
                        tracing::info!("SIGHUP: restarting in place");
                        self.core.begin_restart(&now());
                        continue;
                    }
                    Asked::Reap => {
                        self.processes.reap();
                        continue;
                    }
                },
                event = self.processes.event() => {
                    recording::observe(&mut self.audit, &self.core, &mut self.processes, &event);
                    actions = self.core.apply(event.into(), &now());
                    continue;
                }
                trouble = recording::trouble(&mut self.audit), if !retired => {
                    match trouble {
                        Trouble::Unwritable(why) => {
                            tracing::error!("the audit log can't be written, so nothing may run any more: {why}");
                            actions = self.core.apply(Event::Stop, &now());
                        }
                        Trouble::Excess { uid, excess } => recording::hold_back(&self.core, &mut self.processes, uid, excess),
                    }
                    continue;
                }
                Some((number, outcome)) = mapped.recv() => {
                    actions = self.core.apply(Event::Mapped { number, outcome }, &now());
                    continue;
                }
                _ = heartbeats.tick(), if !retired => {
                    self.watch.check();
                    if let Some(session) = session {
                        self.link.publish(session, Item::Heartbeat, self.heartbeat(self.period.as_secs()));
                    }
                    continue;
                }
                _ = ticks.tick() => {
                    self.processes.give_up_on_reports();
                    let now = now();
                    self.terminals.show_time(&now.wall);
                    actions = self.core.apply(Event::Tick, &now);
                    continue;
                }
                _ = orphan_looks.tick(), if orphans_come => {
                    orphans.reap(|pid| self.processes.is_child(pid));
                    continue;
                }
                _ = looks.tick(), if !retired => {
                    if let Some(mapper) = &self.mapper {
                        mapper.look();
                    }
                    continue;
                }
                event = self.watch.event(), if !retired => {
                    match event {
                        WatchEvent::Superseded => {
                            tracing::error!("another process runs this manager now");
                            actions = self.core.apply(Event::Stop, &now());
                        }
                        WatchEvent::TouchFailed(error) => {
                            tracing::warn!(%error, "the PID file can't be touched");
                        }
                    }
                    continue;
                }
                renewed = restart::renewed(&mut renewal), if renewal.is_some() => {
                    renewal = None;
                    let renewed = renewed.and_then(|registration| {
                        let authorities = self.document.authorities.clone();
                        let config = registration::link_config(&registration, self.config, authorities)?;
                        Ok((registration, config))
                    });
                    match renewed {
                        Ok((registration, config)) => {
                            self.document.registration = registration;
                            self.document.unregistered = false;
                            let config = amqp::LinkConfig { first_session: next_session, ..config };
                            (self.link, self.link_events) = amqp::start(config);
                        }
                        Err(failure) => {
                            tracing::error!("no new credentials: {}", failure.text);
                            actions = self.core.apply(Event::Stop, &now());
                        }
                    }
                    continue;
                }
                Some(event) = self.link_events.recv() => event,
            };
            match event {
                amqp::Event::Up { session: number } => {
                    tracing::info!(session = number, "connected to the broker");
                    session = Some(number);
                    next_session = number.saturating_add(1);
                    if !retired {
                        self.link.publish(number, Item::Heartbeat, self.heartbeat(self.period.as_secs()));
                    }
                }
                amqp::Event::Delivered(delivery) => {
                    delivery::debug(&delivery);
                    actions = self.core.apply(Event::Received(delivery::received(&delivery)), &now());
                }
                amqp::Event::Settled { status: PublishStatus::Confirmed, .. } | amqp::Event::Commanded(_) => {
                }
                amqp::Event::Settled { status, .. } => {
                    tracing::warn!(outcome = ?status, "the broker did not accept a heartbeat");
                }
                amqp::Event::Down { reason, pause, .. } => {
                    tracing::warn!(%reason, pause_s = pause.as_secs_f64(), "no connection to the broker; trying again");
                    session = None;
                    if !retired {
                        // Another process may have taken the manager.
                        self.watch.check();
                    }
                }
                amqp::Event::Ended(LinkEnd::AuthenticationRefused(reason)) if !retired => {
                    tracing::warn!(%reason, "the broker does not accept the credentials; registering again");
                    session = None;
                    renewal = Some(restart::renew(self.document, self.endpoint, pid_file.claim()));
                }
                amqp::Event::Ended(end) => {
                    session = None;
                    if !retired {
                        tracing::error!(?end, "giving up on the broker");
                        actions = self.core.apply(Event::Stop, &now());
                    }
                }
            }
        }
    }

    /// Performs one action, and returns those that follow from it.
    fn perform(
        &mut self,
        action: Action,
        outcomes: &mpsc::UnboundedSender<(u64, MappingOutcome)>,
    ) -> Vec<Action> {
        match action {
            Action::Map { number, identities } => match &self.mapper {
                Some(mapper) => mapper.map(number, identities, outcomes.clone()),
                None => {
                    let _ = outcomes.send((number, MappingOutcome::Nobody));
                }
            },
            Action::Launch { request } => {
                let name = request.name.clone();
                let started = self.processes.launch(*request, self.audit.is_some());
                let event = match started {
                    Ok((serial, pid)) => Event::Spawned { name: &name, serial, pid },
                    Err(error) => Event::NotSpawned { name: &name, problem: error.to_string() },
                };
                return self.core.apply(event, &now());
            }
            Action::Renew { name, credentials } => self.processes.renew(&name, &credentials),
            Action::Acknowledge(Tag { session, number }) => {
                self.link.acknowledge(vec![amqp::Tag { session, number }]);
            }
            Action::Notice { credentials, text } => self.notices.send(*credentials, text),
            Action::Signal(signalled) => self.processes.signal(signalled),
            Action::Log(Level::Info, text) => tracing::info!("{text}"),
            Action::Log(Level::Warning, text) => tracing::warn!("{text}"),
            Action::Log(Level::Error, text) => tracing::error!("{text}"),
            // The caller performs these.
            Action::Retire | Action::Finish => {}
        }
        Vec::new()
    }

    /// Takes no more commands, and says that the manager goes offline.
    fn retire(&self, session: Option<u32>) {
        if let Some(title) = &self.title {
            title.show("[shutdown in progress] ");
        }
        self.link.consume(false);
        if let Some(session) = session {
            self.link.publish(session, Item::Heartbeat, self.heartbeat(0));
        }
    }

    /// Closes the connection to the broker. What it has delivered and we have not acknowledged goes back to the queue.
    async fn close(&mut self) {
        self.link.close_within(CLOSE_TIMEOUT, &mut self.link_events).await;
    }

    fn heartbeat(&self, period: u64) -> Vec<u8> {
        let state = Map::from_iter([("heartbeat_period".to_owned(), Value::from(period))]);
        StatusReport {
            endpoint_id: self.document.registration.endpoint_id,
            global_state: state.into(),
            task_statuses: Default::default(),
        }
        .encode()
    }
}

fn now() -> Now {
    Now { wall: clock::local_time(), monotonic: clock::since_boot() }
}
