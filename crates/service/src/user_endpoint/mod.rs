//! Finds or starts user endpoints: a submit to a manager goes to the endpoint that the manager runs for this person with
//! this configuration. If it does not run, the service sends the manager a command to start it.
//!
//! [`id`] computes its id. [`starts`] decides the steps of a start, and this module performs them: it issues credentials,
//! makes queues, publishes the command, and wakes the waiting submits at the first report of the endpoint or its manager.
//! No step polls. A user endpoint that ends is started again for its open tasks: [`restarts`], [`supervisor`]. A failure that no
//! submit waited for any more is told to the next one: [`unheard`].

pub mod forgetting;
pub mod id;
pub mod restarts;
pub mod starts;
pub mod supervisor;
mod template_reads;
mod unheard;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::{BadProperties, Confirmation, DeclareError, Message, Properties};
use tokio::sync::{Notify, watch};
use wire::message::Liveness;
use wire::queue::{Registration, command_queue, exchange};
use wire::start_document::{CONTENT_TYPE, LinkedIdentity, START_ENDPOINT, StartArguments, StartEndpoint};
use wire::{EndpointId, IdentityId};

use self::starts::{Action, Event, START_TIMEOUT, StartResult, Starts as StartTable};
use self::unheard::Unheard;
use crate::clock;
use crate::dispatch::broker_user::ConnectionUrl;
use crate::dispatch::{Dispatch, EndpointObserver};
use store::secret::{self, Hash};
use store::{
    Endpoint, Holder, RegisterEndpoint, RegistrationResult, RequestedConfiguration, Store, StoreError,
    outage_log,
};

/// How long the command may wait in the manager's queue, in milliseconds: later, no submit waits for it.
const COMMAND_EXPIRATION: &str = "10000";

/// The starts under way, and the submits that wait for them. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Starts(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// A manager connected.
    connected: Notify,
    /// Wakes the supervisor.
    woken: Notify,
}

#[derive(Debug, Default)]
struct State {
    core: StartTable,
    waiters: HashMap<EndpointId, watch::Sender<Option<StartResult>>>,
    /// User endpoints whose manager connected and whose command was not sent yet.
    due: Vec<EndpointId>,
    unheard: Unheard,
}

impl Starts {
    /// Wakes the supervisor of user endpoints.
    pub fn wake_supervisor(&self) {
        self.0.woken.notify_one();
    }

    /// Waits for the next wake-up, or returns at once if there was one since the last.
    pub fn woken(&self) -> impl Future<Output = ()> + '_ {
        self.0.woken.notified()
    }

    /// Whether `user_endpoint` is being started.
    pub fn is_starting(&self, user_endpoint: EndpointId) -> bool {
        self.state().core.due(user_endpoint).is_some()
    }

    fn apply(&self, user_endpoint: EndpointId, event: Event) -> Vec<Action> {
        let mut state = self.state();
        let was_setting_up = state.core.set_up(user_endpoint).is_some();
        let actions = state.core.apply(user_endpoint, event, clock::now());
        state.tell(user_endpoint, &actions, was_setting_up);
        actions
    }

    fn tick(&self, user_endpoint: EndpointId) {
        let mut state = self.state();
        let actions = state.core.tick(user_endpoint, clock::now());
        state.tell(user_endpoint, &actions, false);
    }

    /// Joins the start of `user_endpoint`, or begins it; then the caller must perform the returned actions.
    fn want(
        &self,
        user_endpoint: EndpointId,
        manager: EndpointId,
        connected: bool,
    ) -> (watch::Receiver<Option<StartResult>>, Vec<Action>) {
        let mut state = self.state();
        let now = clock::now();
        if let Some(why) = state.unheard.take(user_endpoint, now) {
            return (watch::channel(Some(StartResult::Refused(why))).1, Vec::new());
        }
        let event = Event::Wanted { manager, connected };
        let actions = state.core.apply(user_endpoint, event, now);
        let sender = state.waiters.entry(user_endpoint).or_insert_with(|| watch::channel(None).0);
        (sender.subscribe(), actions)
    }

    /// How a submit ends that has waited as long as it can.
    fn so_far(&self, user_endpoint: EndpointId) -> StartResult {
        let set_up = self.state().core.set_up(user_endpoint).cloned();
        set_up.map_or(StartResult::Silent, StartResult::SettingUp)
    }

    /// Whether the manager of `user_endpoint` connected since a submit waits for it.
    fn take_due(&self, user_endpoint: EndpointId) -> bool {
        let mut state = self.state();
        let before = state.due.len();
        state.due.retain(|due| *due != user_endpoint);
        state.due.len() < before
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held cannot have left it half changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The most that is kept of what a user endpoint says, in characters. Its last lines matter.
const LONGEST: usize = 4_000;

fn kept(text: &str) -> String {
    let skipped = text.chars().count().saturating_sub(LONGEST);
    text.chars().skip(skipped).collect()
}

impl EndpointObserver for Starts {
    fn reported(&self, user_endpoint: EndpointId, credential: i64, liveness: Liveness) {
        let event = match liveness {
            Liveness::Online { .. } => Event::Alive,
            Liveness::SettingUp { mut set_up, .. } => {
                set_up.output = kept(&set_up.output);
                Event::SettingUp { credential, set_up }
            }
            Liveness::FailedToStart(text) => Event::Reported { credential, text: kept(&text) },
            // It ends while a submit waits: the manager has the command and starts it again.
            Liveness::Offline => return self.wake_supervisor(),
        };
        self.apply(user_endpoint, event);
    }

    fn reads_commands(&self, manager: EndpointId) {
        self.wake_supervisor();
        let mut state = self.state();
        let due = state.core.connected(manager);
        if !due.is_empty() {
            state.due.extend(due);
            self.0.connected.notify_waiters();
        }
    }
}

impl State {
    /// Tells those who wait. What nobody waits for is kept if it took long to find out.
    fn tell(&mut self, user_endpoint: EndpointId, actions: &[Action], was_setting_up: bool) {
        for action in actions {
            if let Action::Finish(result) = action {
                self.due.retain(|due| *due != user_endpoint);
                let waiters = self.waiters.remove(&user_endpoint);
                match (waiters.filter(|it| it.receiver_count() > 0), result) {
                    (Some(waiters), _) => drop(waiters.send_replace(Some(result.clone()))),
                    (None, StartResult::Refused(why)) if was_setting_up => {
                        self.unheard.add(user_endpoint, why.clone(), clock::now());
                    }
                    (None, _) => {}
                }
            }
        }
    }
}

/// Why a command could not be sent. Only the log gets the reason.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Declare(#[from] DeclareError),
    #[error(transparent)]
    Properties(#[from] BadProperties),
    #[error("the id belongs to another endpoint, or the account that it is for is disabled")]
    NotRegistered,
    #[error("its owner has the most user endpoints allowed")]
    TooMany,
    #[error("identity {0} was removed")]
    UnknownIdentity(IdentityId),
    #[error("the broker did not take the command: {0:?}")]
    NotPublished(Confirmation),
}

/// The user endpoint that a submit asks of a manager.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub identity: IdentityId,
    pub choices: RequestedConfiguration,
}

/// Finds and starts user endpoints. Clones share everything.
#[derive(Clone, Debug)]
pub struct Starter {
    pub store: Store,
    pub dispatch: Dispatch,
    pub starts: Starts,
    /// The most user endpoints of one identity.
    pub most: u32,
}

impl Starter {
    /// The id of the user endpoint of `manager` for `wanted`.
    pub async fn id_of(&self, manager: EndpointId, wanted: &Wanted) -> Result<EndpointId, StoreError> {
        let RequestedConfiguration { config, runtime } = &wanted.choices;
        let template = self.store.endpoint_metadata(manager).await?.user_config_template;
        let template = template.unwrap_or_default();
        Ok(id::of(manager, wanted.identity, &config.to_object(), runtime.as_ref(), &template))
    }

    /// Waits until the user endpoint `id` of `manager`, which is that for `wanted`, takes tasks; starts it if need be. Returns how
    /// the start failed, or that it has not ended.
    pub async fn ready(&self, manager: &Endpoint, id: EndpointId, wanted: Wanted) -> Result<(), StartResult> {
        if self.dispatch.consumes(id) {
            // Anybody can compute an id and register it: check whose endpoint it is.
            return match self.store.endpoint(id).await {
                Ok(Some(it)) if it.owner == wanted.identity && it.manager == Some(manager.id) => Ok(()),
                Ok(Some(_)) => {
                    tracing::error!(user_endpoint = %id, "the id of a user endpoint belongs to another endpoint");
                    Err(StartResult::Broken)
                }
                // It has just been deleted; the next submit starts it again.
                Ok(None) => Err(StartResult::Broken),
                Err(error) => {
                    if !outage_log::logs(&error) {
                        tracing::error!(%error, user_endpoint = %id, "cannot look up a user endpoint");
                    }
                    Err(StartResult::Broken)
                }
            };
        }
        let starts = &self.starts;
        let (mut result, actions) = starts.want(id, manager.id, self.dispatch.reads_commands(manager.id));
        if actions.contains(&Action::Begin) {
            let starter = self.clone();
            let manager = manager.clone();
            let at_once = actions.contains(&Action::Command);
            // Not part of the request: other submits may have joined the start when this client disconnects.
            tokio::spawn(async move { starter.start(id, &manager, &wanted, at_once).await });
        }
        let patience = START_TIMEOUT.unsigned_abs();
        let ended = match tokio::time::timeout(patience, result.wait_for(Option::is_some)).await {
            Ok(ended) => ended.ok().and_then(|ended| ended.clone()).unwrap_or(StartResult::Broken),
            Err(_) => starts.so_far(id),
        };
        match ended {
            StartResult::Ready => Ok(()),
            other => Err(other),
        }
    }

    /// Drives one start to its end.
    async fn start(&self, id: EndpointId, manager: &Endpoint, wanted: &Wanted, at_once: bool) {
        let starts = &self.starts;
        let mut commanded = false;
        loop {
            let connected = starts.0.connected.notified();
            if !commanded && (at_once || starts.take_due(id)) {
                commanded = true;
                match self.command(id, manager, wanted).await {
                    Ok(()) => {}
                    Err(CommandError::TooMany) => drop(starts.apply(id, Event::TooMany)),
                    Err(error) => {
                        tracing::error!(%error, user_endpoint = %id, "cannot start a user endpoint");
                        starts.apply(id, Event::Failed);
                    }
                }
            }
            let Some(due) = starts.state().core.due(id) else { return };
            let wait = due.duration_since(clock::now()).try_into().unwrap_or_default();
            tokio::select! {
                () = connected, if !commanded => {}
                () = tokio::time::sleep(wait) => starts.tick(id),
            }
        }
    }

    async fn command(&self, id: EndpointId, manager: &Endpoint, wanted: &Wanted) -> Result<(), CommandError> {
        let now = clock::now();
        let name = wire::start_document::user_endpoint_name(manager.id, id);
        let endpoint = Endpoint {
            id,
            owner: wanted.identity,
            name: name.clone(),
            display_name: None,
            multi_user: false,
            public: false,
            // Its manager's list holds, as it is when it is asked.
            allowed_functions: None,
            admins: Vec::new(),
            is_manager: false,
            created: now,
            manager: Some(manager.id),
            broker_at: manager.broker_at.clone(),
        };
        let broker_at = manager.broker_at.as_deref().unwrap_or_default();
        let secret = secret::fresh();
        let choices = Some(wanted.choices.clone());
        let register = RegisterEndpoint {
            endpoint,
            metadata: Default::default(),
            choices,
            client: None,
            token: None,
            most: self.most,
            secret: Hash::of(&secret),
            now,
        };
        let number = match self.store.write(register).await? {
            RegistrationResult::Credential(number) => number,
            RegistrationResult::TooMany => return Err(CommandError::TooMany),
            RegistrationResult::LockedUntil(_)
            | RegistrationResult::OfAnother
            | RegistrationResult::Inactive => {
                return Err(CommandError::NotRegistered);
            }
        };
        self.dispatch.user_endpoint_registered(id)?;
        let url = ConnectionUrl { holder: Holder::Endpoint(id), number, secret: &secret }.at(broker_at);
        let (username, person) = self.person(wanted.identity).await?;
        let command = StartEndpoint {
            command: START_ENDPOINT.to_owned(),
            args: Vec::new(),
            kwargs: StartArguments {
                name,
                user_opts: wanted.choices.config.clone(),
                user_runtime: wanted.choices.runtime.clone(),
                amqp_creds: Registration::new(id, &url),
            },
            globus_username: username,
            globus_effective_identity: wanted.identity,
            globus_identity_set: person,
        };
        let properties = Properties::default()
            .with_content_type(CONTENT_TYPE.into())
            .with_content_encoding("utf-8".into())
            .with_timestamp(u64::try_from(now.as_second()).unwrap_or_default())
            .with_expiration(COMMAND_EXPIRATION.into());
        let queue = command_queue(manager.id);
        let message = Message::new(exchange::COMMANDS, &queue, &properties, command.encode())?;
        // Before the command is sent: the heartbeat may come before the confirmation.
        self.starts.apply(id, Event::Commanded { credential: number });
        tracing::info!(user_endpoint = %id, manager = %manager.id, "sending a manager the command to start a user endpoint");
        match self.dispatch.publish(message).await {
            Confirmation::Confirmed => Ok(()),
            other => Err(CommandError::NotPublished(other)),
        }
    }

    /// The identities by which a manager chooses the local user: the submitter's, and all linked with it.
    async fn person(&self, identity: IdentityId) -> Result<(String, Vec<LinkedIdentity>), CommandError> {
        let set = self.store.identity_set(identity).await?;
        let asking =
            set.iter().find(|it| it.id == identity).ok_or(CommandError::UnknownIdentity(identity))?;
        let username = asking.username.clone();
        let linked = set.into_iter().map(|it| {
            let text = |key: &str, value: Option<String>| Some((key.to_owned(), value?.into()));
            let members = [
                text("id", Some(it.id.to_string())),
                text("username", Some(it.username)),
                text("name", Some(it.name)),
                text("email", it.email),
                text("organization", it.organization),
                text("status", Some("used".to_owned())),
            ];
            let mut rest: wire::json::Object = members.into_iter().flatten().collect();
            if let Some(at) = it.authenticated {
                rest.insert("last_authentication".to_owned(), at.as_second().into());
            }
            LinkedIdentity { sub: it.id, rest }
        });
        Ok((username, linked.collect()))
    }
}
