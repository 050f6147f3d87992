//! Which functions an endpoint runs: those of its manager's list, else those of its own. A manager's list may change while
//! the endpoint runs. It never widens what the manager allows: without a word of the manager, what was said last holds.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use wire::FunctionId;

use super::renewed_credentials::{BEGINNING, ManagersList, RenewedCredentials};

/// How often the manager's word is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The two lists. `None`: there is none. An empty one allows nothing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AllowedFunctions {
    pub(super) of_manager: ManagersList,
    pub(super) own: Option<Vec<FunctionId>>,
}

impl AllowedFunctions {
    /// The list that holds; `None`: every function is allowed.
    pub(super) fn effective(&self) -> Option<HashSet<FunctionId>> {
        let list = self.of_manager.as_ref().or(self.own.as_ref())?;
        Some(list.iter().copied().collect())
    }

    /// What the log must say about them.
    pub(super) fn warning(&self) -> Option<&'static str> {
        match (&self.of_manager, &self.own) {
            (Some(list), Some(own)) if list != own => {
                Some("the manager's list of allowed functions holds; the template's is ignored")
            }
            (Some(list), _) | (None, Some(list)) if list.is_empty() => {
                Some("no function is allowed: the list of allowed functions is empty")
            }
            _ => None,
        }
    }
}

/// Watches what the manager of this endpoint says.
#[derive(Debug)]
pub(super) struct AllowedFunctionsWatch {
    lists: AllowedFunctions,
    /// `None`: nobody can change the lists.
    file: Option<Arc<RenewedCredentials>>,
    looks: Interval,
    /// The beginning of the content that was read last.
    read: Option<[u8; BEGINNING]>,
}

impl AllowedFunctionsWatch {
    pub(super) fn new(lists: AllowedFunctions, file: Option<Arc<RenewedCredentials>>) -> Self {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Some(warning) = lists.warning() {
            tracing::warn!("{warning}");
        }
        Self { lists, file, looks, read: None }
    }

    /// The list that holds; `None`: every function is allowed.
    pub(super) fn effective(&self) -> Option<HashSet<FunctionId>> {
        self.lists.effective()
    }

    /// Waits until another list holds, and returns it.
    pub(super) async fn changed(&mut self) -> Option<HashSet<FunctionId>> {
        loop {
            if self.file.is_none() {
                return std::future::pending().await;
            }
            self.looks.tick().await;
            if self.look() {
                return self.lists.effective();
            }
        }
    }

    /// Whether the manager says something else than before.
    fn look(&mut self) -> bool {
        let Some(file) = &self.file else { return false };
        let beginning = file.beginning();
        if beginning.is_none() || beginning == self.read {
            return false;
        }
        // The manager may be writing: then the next look reads it.
        let Some(said) = file.allowed_functions() else { return false };
        self.read = beginning;
        let Some(of_manager) = said.filter(|list| *list != self.lists.of_manager) else { return false };
        self.lists.of_manager = of_manager;
        tracing::info!("the manager's list of allowed functions has changed");
        if let Some(warning) = self.lists.warning() {
            tracing::warn!("{warning}");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek as _, Write as _};
    use std::os::fd::IntoRawFd as _;

    use serde_json::{Value, json};
    use uuid::Uuid;
    use wire::queue::Registration;

    use super::*;
    use crate::fernet::Key;

    fn functions(numbers: &[u128]) -> Vec<FunctionId> {
        numbers.iter().map(|number| FunctionId::from_uuid(Uuid::from_u128(*number))).collect()
    }

    #[test]
    fn which_list_holds_and_what_the_log_says() {
        let (one, two, none) = (functions(&[1]), functions(&[2]), vec![]);
        for (of_manager, own, expected, said) in [
            (None, None, None, None),
            (None, Some(&one), Some(&one), None),
            (None, Some(&none), Some(&none), Some("no function is allowed")),
            (Some(&one), None, Some(&one), None),
            (Some(&one), Some(&one), Some(&one), None),
            (Some(&one), Some(&two), Some(&one), Some("the manager's list of allowed functions holds")),
            (Some(&none), None, Some(&none), Some("no function is allowed")),
        ] {
            let lists = AllowedFunctions { of_manager: of_manager.cloned(), own: own.cloned() };
            let expected = expected.map(|list| list.iter().copied().collect::<HashSet<_>>());
            assert_eq!(lists.effective(), expected, "{lists:?}");
            let warning = lists.warning();
            assert!(
                warning.is_some() == said.is_some() && warning.unwrap_or("").starts_with(said.unwrap_or("")),
                "{lists:?}: {warning:?}"
            );
        }
    }

    #[tokio::test]
    async fn the_managers_word_is_followed_and_its_silence_changes_nothing() {
        let key = Key::generate().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let reader = file.try_clone().unwrap().into_raw_fd();
        let renewed = RenewedCredentials::open(reader, &key.text()).map(Arc::new);
        let registration =
            Registration::new("e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap(), "amqp://h/");
        let mut write = |said: Option<Value>, part: usize| {
            let mut content = json!({"amqp_creds": registration});
            if let Some(said) = said {
                content["allowed_functions"] = said;
            }
            let token = key.encrypt(content.to_string().as_bytes(), 1).unwrap();
            let whole = |file: &mut File| {
                file.set_len(0)?;
                file.rewind()?;
                file.write_all(&token.as_bytes()[..token.len() / part])
            };
            whole(&mut file).unwrap();
        };
        let (one, own) = (functions(&[1]), functions(&[2]));
        let lists = AllowedFunctions { of_manager: Some(one.clone()), own: Some(own.clone()) };
        let mut watch = AllowedFunctionsWatch::new(lists, renewed);
        assert!(!watch.look(), "nothing is written");
        write(None, 1);
        assert!(!watch.look(), "upstream's managers say nothing, and what holds goes on");
        write(Some(json!(one)), 1);
        assert!(!watch.look(), "nothing else than before");
        write(Some(json!([])), 2);
        assert!(!watch.look(), "half is written");
        write(Some(json!([])), 1);
        assert!(watch.look() && !watch.look());
        assert_eq!(watch.lists.effective(), Some(HashSet::new()));
        write(Some(Value::Null), 1);
        assert!(watch.look());
        assert_eq!(watch.lists.effective(), Some(own.into_iter().collect()), "the endpoint's own");
    }
}
