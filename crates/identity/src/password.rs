//! Hashes and checks passwords with argon2id, on threads of their own, a few at a time.
//!
//! A check takes some 20 ms and 19 MiB on purpose. Half of the processors run checks at most ([`at_once`]), [`WAITING`] more
//! wait, shared fairly among the addresses that they come from, and further ones are refused as busy. So password checks
//! never delay other requests, and one address cannot keep others from signing in. Passwords that an operator sets have room
//! of their own. An unknown user takes as long as a known one.

use std::net::IpAddr;
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use wire::IdentityId;

use super::Identity;
use super::end_reason::EndReason;
use crate::fair_shares::Shares;
use crate::http::arrival::network;
use crate::random;
use store::{Kind, Profile, StoreError};

/// How many checks may wait.
const WAITING: usize = 128;
/// OWASP's first choice for argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Lengths in bytes. No rule about kinds of characters: they make passwords worse.
pub const SHORTEST: usize = 8;
pub const LONGEST: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Unknown user, a user without password, or a wrong password: the same answer, at the same cost.
    #[error("unknown user or wrong password")]
    Refused,
    /// The password is right, and the account, or the first of its set, is disabled.
    #[error("{0}")]
    Disabled(EndReason),
    /// Too many are being checked.
    #[error("too many passwords are being checked; try again in a moment")]
    Busy,
    #[error("a password has {SHORTEST} to {LONGEST} bytes")]
    Length,
    #[error("a password must not be the username")]
    Username,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the password could not be hashed")]
    Hash,
}

/// Hashes and checks passwords. Clones share the limits.
#[derive(Clone, Debug)]
pub struct Hasher {
    running: Arc<Semaphore>,
    /// Those that run and those that wait, by the networks that they come from.
    admitted: Shares<IpAddr>,
    /// For an operator's, one at a time.
    operators: Arc<Semaphore>,
}

/// How many checks run at a time: the other processors are for the rest of the service.
fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1))
}

impl Default for Hasher {
    fn default() -> Self {
        let at_once = at_once();
        Hasher {
            running: Arc::new(Semaphore::new(at_once)),
            admitted: Shares::new(at_once + WAITING),
            operators: Arc::new(Semaphore::new(1)),
        }
    }
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the constants above are valid");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Used for users without a hash, so that their check takes as long; no password is known for it.
const HASH_OF_NO_PASSWORD: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$ZmFyY2FsbG5vYm9keXMx$/x1u2kzVq2l6cXqWk6qA6d2HUJmBQjZ0n9p1mKZBv0E";

impl Hasher {
    /// The hash of `password`, which an operator sets, with a salt of its own.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        in_turn(&self.operators, (), move || {
            let salt = random::random_bytes();
            let hash = argon2().hash_password_with_salt(password.as_bytes(), &salt[..16]);
            hash.map(|hash| hash.to_string()).map_err(|_| PasswordError::Hash)
        })
        .await?
    }

    /// Whether `hash` is that of `password`, for a request from `peer`. Without a hash the same work is done, so that the time
    /// reveals nothing.
    pub async fn verify(
        &self,
        password: String,
        hash: Option<String>,
        peer: IpAddr,
    ) -> Result<bool, PasswordError> {
        self.work(peer, move || {
            let known = hash.is_some();
            let hash = hash.as_deref().unwrap_or(HASH_OF_NO_PASSWORD);
            let Ok(hash) = PasswordHash::new(hash) else { return false };
            argon2().verify_password(password.as_bytes(), &hash).is_ok() && known
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        peer: IpAddr,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let admitted = self.admitted.take(network(peer), 1).ok_or(PasswordError::Busy)?;
        in_turn(&self.running, admitted, work).await
    }
}

/// Does `work` on a thread of its own when it is its turn; `admitted` is given back afterwards.
async fn in_turn<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    admitted: impl Send + 'static,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PasswordError> {
    let turn = turns.clone().acquire_owned().await.map_err(|_| PasswordError::Busy)?;
    let done = tokio::task::spawn_blocking(move || {
        // The permits move into the work: if the caller disconnects, the work still runs to its end.
        let _held = (admitted, turn);
        work()
    });
    done.await.map_err(|_| PasswordError::Hash)
}

impl Identity {
    /// The person with this username and password, for a request from `peer`; the person and the first of the set are
    /// enabled. Only a caller with the right password learns that an account is disabled.
    pub async fn verify_password(
        &self,
        username: &str,
        password: &str,
        peer: IpAddr,
    ) -> Result<Profile, PasswordError> {
        let person = self.profile_named(username).await?.filter(|it| it.kind == Kind::Person);
        let hash = match &person {
            Some(person) => self.store.password(person.id).await?,
            None => None,
        };
        // No password is longer, so hashing it would be wasted.
        let password = if password.len() > LONGEST { String::new() } else { password.to_owned() };
        let right = self.passwords.verify(password, hash, peer).await?;
        let person = person.filter(|_| right).ok_or(PasswordError::Refused)?;
        if person.disabled {
            return Err(PasswordError::Disabled(EndReason::Disabled(person.username)));
        }
        let Some(first) = person.linked_to else { return Ok(person) };
        match self.profile(first).await? {
            Some(first) if !first.disabled => Ok(person),
            Some(first) => Err(PasswordError::Disabled(EndReason::Disabled(first.username))),
            None => Err(PasswordError::Disabled(EndReason::Removed)),
        }
    }

    /// Checks that `username` may have this password, and hashes it.
    pub async fn new_password(&self, username: &str, password: &str) -> Result<String, PasswordError> {
        if !(SHORTEST..=LONGEST).contains(&password.len()) {
            return Err(PasswordError::Length);
        }
        if password.eq_ignore_ascii_case(username) {
            return Err(PasswordError::Username);
        }
        self.passwords.hash(password.to_owned()).await
    }

    /// Whether this identity has a password.
    pub async fn has_password(&self, identity: IdentityId) -> Result<bool, StoreError> {
        Ok(self.store.password(identity).await?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn only_the_same_password_is_right() {
        let hasher = Hasher::default();
        let verify = async |password: &str, hash: Option<&str>| {
            hasher.verify(password.to_owned(), hash.map(str::to_owned), HERE).await.unwrap()
        };
        let hash = hasher.hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, hasher.hash("correct horse".to_owned()).await.unwrap(), "each has its own salt");
        assert!(verify("correct horse", Some(&hash)).await);
        assert!(!verify("correct horsf", Some(&hash)).await);
        assert!(!verify("correct horse", Some("nonsense")).await);
        assert!(!verify("", None).await);
    }

    #[test]
    fn nobodys_hash_costs_what_everybodys_does() {
        let hash = PasswordHash::new(HASH_OF_NO_PASSWORD).unwrap();
        let params = Params::try_from(&hash).unwrap();
        assert_eq!((params.m_cost(), params.t_cost(), params.p_cost()), (MEMORY_KIB, PASSES, LANES));
        assert_eq!(hash.hash.unwrap().as_bytes().len(), Params::DEFAULT_OUTPUT_LEN);
    }

    #[tokio::test]
    async fn one_address_takes_no_more_than_its_share_and_never_what_an_operator_needs() {
        let hasher = Hasher::default();
        // Those that run wait until `open` is dropped.
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        // All of `peer`'s, until one is turned away: so many wait.
        let fill = async |peer: IpAddr| {
            for waiting in 0.. {
                let (other, gate) = (hasher.clone(), gate.clone());
                let waits = peer == HERE;
                let work = move || {
                    if waits {
                        gate.lock().unwrap().recv().unwrap_err();
                    }
                };
                let mut work = tokio::spawn(async move { other.work(peer, work).await });
                match tokio::time::timeout(std::time::Duration::from_millis(20), &mut work).await {
                    Err(_) => {}
                    Ok(Err(error)) => panic!("{error}"),
                    Ok(Ok(done)) => {
                        assert!(matches!(done, Err(PasswordError::Busy)), "{done:?}");
                        return waiting;
                    }
                }
            }
            unreachable!()
        };
        let all = at_once() + WAITING;
        assert_eq!(fill(HERE).await, all / 2);
        let elsewhere = |n: u8| IpAddr::from([192, 0, 2, n]);
        for n in 1..=5 {
            assert!(fill(elsewhere(n)).await > 0, "{n}");
        }
        hasher.hash("an operator's".to_owned()).await.unwrap();
        drop(open);
        hasher.running.acquire_many(u32::try_from(at_once()).unwrap()).await.unwrap().forget();
        assert!(hasher.admitted.take(HERE, all / 2).is_some(), "there is room again");
    }

    #[tokio::test]
    async fn who_may_sign_in() {
        let directory = store::test_database::TestDatabase::new().await;
        let store = directory.open().await;
        let identity = Identity::new(store.clone(), directory.path().to_owned());
        let mut people = Vec::new();
        for (n, username) in [(1, "alice@example.edu"), (2, "alice@lab.example.org"), (3, "bob@example.edu")]
        {
            let profile = Profile {
                id: IdentityId::from_uuid(uuid::Uuid::from_u128(n)),
                kind: Kind::Person,
                username: username.to_owned(),
                name: username.to_owned(),
                email: None,
                organization: None,
                disabled: false,
                administrator: false,
                linked_to: None,
                generation: 0,
                authenticated: None,
                created: jiff::Timestamp::UNIX_EPOCH,
            };
            let password = match n {
                3 => None,
                _ => Some(identity.new_password(username, "correct horse").await.unwrap()),
            };
            store.write(store::AddPerson { profile: profile.clone(), password }).await.unwrap().unwrap();
            people.push(profile);
        }
        let link = store::Link { identity: people[1].id, primary: Some(people[0].id) };
        store.write(link).await.unwrap();
        let verify = async |username: &str, password: &str| match identity
            .verify_password(username, password, HERE)
            .await
        {
            Ok(profile) => Some(profile.username),
            Err(PasswordError::Refused) => None,
            Err(PasswordError::Disabled(why)) => Some(why.to_string()),
            Err(other) => panic!("{other}"),
        };
        let disabled = |username: &str| {
            Some(format!("The account {username} is disabled: ask who administers this service"))
        };
        let alice = Some("alice@example.edu".to_owned());
        let lab = Some("alice@lab.example.org".to_owned());
        assert_eq!(verify(" Alice@Example.edu", "correct horse").await, alice);
        assert_eq!(verify("alice@lab.example.org", "correct horse").await, lab);
        for (username, password) in [
            ("alice@example.edu", "correct horsf"),
            ("alice@example.edu", ""),
            ("alice@example.edu", &"x".repeat(LONGEST + 1)),
            ("bob@example.edu", "correct horse"),
            ("bob@example.edu", ""),
            ("nobody@example.edu", "correct horse"),
            ("alice", "correct horse"),
        ] {
            assert_eq!(verify(username, password).await, None, "{username} {password}");
        }
        let disable = async |id, disabled| {
            store.write(store::SetDisabled { identity: id, disabled }).await.unwrap();
        };
        disable(people[1].id, true).await;
        assert_eq!(verify("alice@lab.example.org", "correct horse").await, disabled("alice@lab.example.org"));
        assert_eq!(verify("alice@lab.example.org", "wrong").await, None, "strangers are told nothing");
        assert_eq!(verify("alice@example.edu", "correct horse").await, alice);
        disable(people[1].id, false).await;
        disable(people[0].id, true).await;
        assert_eq!(
            verify("alice@lab.example.org", "correct horse").await,
            disabled("alice@example.edu"),
            "the first of the set counts"
        );
        assert_eq!(verify("alice@lab.example.org", "wrong").await, None);
    }
}
