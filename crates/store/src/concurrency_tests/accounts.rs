//! What is issued to accounts, and its end, in two processes at the same time.

use std::collections::HashSet;

use jiff::SignedDuration;
use uuid::Uuid;
use wire::{ClientId, EndpointId, IdentityId, ProjectId};

use super::*;
use crate::database::query;
use crate::identity::account_status::AccountVersion;
use crate::secret::Hash;
use crate::test_database::registration;
use crate::tests::{OWNER, endpoint};
use crate::*;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn client() -> ClientId {
    ClientId::from_uuid(*OWNER.as_uuid())
}

fn token() -> Token {
    Token {
        identity: OWNER,
        client: client(),
        scope: "openid".into(),
        resource_server: "auth.globus.org".into(),
        issued: NOW,
        expires: NOW + HOUR,
        session: None,
        grant: None,
        parent: None,
    }
}

fn hash(kind: &str, number: impl std::fmt::Display) -> Hash {
    Hash::of(&format!("{kind} {number}"))
}

fn add(hash: Hash, token: Token, shown_by: Option<AccountVersion>) -> AddTokens {
    AddTokens { tokens: vec![(hash, token)], shown_by }
}

fn new_credential(secret: Hash, token: Option<Hash>) -> NewClientCredential {
    NewClientCredential { identity: OWNER, token, secret, now: NOW, expires: NOW + HOUR }
}

fn refresh_token(grant: Uuid) -> RefreshToken {
    RefreshToken {
        chain: Uuid::from_u128(grant.as_u128() + 1),
        grant,
        session: Uuid::from_u128(9),
        identity: OWNER,
        client: client(),
        scope: "openid".into(),
        resource_server: "auth.globus.org".into(),
        chain_key: vec![1],
        issued: NOW,
        expires: NOW + HOUR,
    }
}

fn rotate(from: Hash, successor: Hash) -> Rotate {
    Rotate { hash: from, successor, now: NOW, expires: NOW + HOUR, grace_since: NOW }
}

/// A registration with a token.
fn registration_with(id: EndpointId, token: Option<Hash>, most: u32) -> RegisterEndpoint {
    RegisterEndpoint { token, most, now: NOW, ..registration(id, OWNER) }
}

/// Runs `command` on a task of its own, after a pause or none.
fn spawn<C: Command>(store: &Store, dice: &mut Dice, command: C) -> tokio::task::JoinHandle<C::Output> {
    let (store, mut dice) = (store.clone(), dice.split());
    tokio::spawn(async move {
        dice.pause().await;
        store.write(command).await.unwrap()
    })
}

#[tokio::test]
async fn credentials_have_numbers_of_their_own() {
    let Some((_database, stores)) = two_stores().await else { return };
    let mut dice = Dice::new();
    let commands: Vec<_> = (0..40)
        .map(|number| spawn(&stores[number % 2], &mut dice, new_credential(hash("c", number), None)))
        .collect();
    let mut numbers = HashSet::new();
    for command in commands {
        let number = command.await.unwrap();
        assert!(numbers.insert(number.unwrap()), "{number:?} twice");
    }
}

#[tokio::test]
async fn nobody_has_more_endpoints_or_projects_than_allowed() {
    let Some((database, stores)) = two_stores().await else { return };
    let mut dice = Dice::new();
    let commands: Vec<_> = (0..30)
        .map(|number| {
            let id = EndpointId::from_uuid(Uuid::from_u128(5000 + number as u128));
            spawn(&stores[number % 2], &mut dice, registration_with(id, None, 7))
        })
        .collect();
    let mut registered = 0;
    for command in commands {
        registered += i64::from(matches!(command.await.unwrap(), RegistrationResult::Credential(1)));
    }
    assert_eq!(registered, 5, "two were there before");
    let commands: Vec<_> = (0..30)
        .map(|number| {
            let project = Project {
                id: ProjectId::from_uuid(Uuid::from_u128(number as u128)),
                display_name: "p".into(),
                contact_email: "p@example.edu".into(),
                admins: vec![OWNER],
                admin_groups: Vec::new(),
                created: NOW,
            };
            spawn(&stores[number % 2], &mut dice, AddProject { project, creator: OWNER, most: 4 })
        })
        .collect();
    let mut added = 0;
    for command in commands {
        added += i64::from(command.await.unwrap());
    }
    assert_eq!(added, 4);
    let mut session = session(&database).await;
    assert_eq!(number(&mut session, "SELECT count(*) FROM endpoints").await, 7);
    assert_eq!(number(&mut session, "SELECT count(*) FROM projects").await, 4);
}

/// A lock ends the credential of a registration that was under way; a deletion does not let numbers begin again.
#[tokio::test]
async fn an_endpoint_is_registered_before_its_lock_or_not_at_all() {
    let Some((database, stores)) = two_stores().await else { return };
    let (mut dice, mut session) = (Dice::new(), session(&database).await);
    let mut numbers = HashSet::from([1]);
    let left = "SELECT count(*) FROM credentials c JOIN endpoints e ON e.id = c.subject_id \
                WHERE c.kind = 'ep' AND e.id = '\\x00000000000000000000000000000064'";
    for _ in 0..25 {
        let register = spawn(&stores[0], &mut dice, registration_with(endpoint(0), None, 2));
        let lock = LockEndpoint { endpoint: endpoint(0), until: NOW + HOUR };
        spawn(&stores[1], &mut dice, lock).await.unwrap();
        match register.await.unwrap() {
            RegistrationResult::Credential(number) => assert!(numbers.insert(number), "{number} twice"),
            refused => assert!(matches!(refused, RegistrationResult::LockedUntil(_)), "{refused:?}"),
        }
        assert_eq!(number(&mut session, left).await, 0, "a credential outlived the lock");
        stores[0].write(UnlockEndpoint(endpoint(0))).await.unwrap();

        let register = spawn(&stores[0], &mut dice, registration_with(endpoint(0), None, 2));
        let delete = spawn(&stores[1], &mut dice, DeleteEndpoint(endpoint(0)));
        let registered = register.await.unwrap();
        delete.await.unwrap();
        let RegistrationResult::Credential(number) = registered else { panic!("{registered:?}") };
        assert!(numbers.insert(number), "{number} twice");
        let again = stores[0].write(registration_with(endpoint(0), None, 2)).await.unwrap();
        let RegistrationResult::Credential(number) = again else { panic!("{again:?}") };
        assert!(numbers.insert(number), "{number} twice");
    }
}

#[tokio::test]
async fn a_refresh_token_has_one_successor() {
    let Some((database, stores)) = two_stores().await else { return };
    let (mut dice, mut session) = (Dice::new(), session(&database).await);
    for round in 0..20_u128 {
        let grant = Uuid::from_u128(1000 * (round + 1));
        let [first, second, third] = [1, 2, 3].map(|n| hash("refresh", round * 10 + n));
        stores[0].write(AddRefreshToken { hash: first, token: refresh_token(grant) }).await.unwrap();
        let both = [0, 1].map(|at| spawn(&stores[at], &mut dice, rotate(first, second)));
        for rotated in both {
            assert_eq!(rotated.await.unwrap(), Rotation::Done);
        }
        let count =
            format!("SELECT count(*) FROM refresh_tokens WHERE grant_id = '\\x{}'", grant.as_simple());
        assert_eq!(number(&mut session, &count).await, 2);
        // A copy of the first is shown while the second is exchanged: all of the login ends, or the exchange was before it.
        let exchange = spawn(&stores[0], &mut dice, rotate(second, third));
        let copy = Rotate { grace_since: NOW + HOUR, ..rotate(first, second) };
        let copied = spawn(&stores[1], &mut dice, copy);
        let issue = spawn(&stores[0], &mut dice, {
            add(hash("of grant", round), Token { grant: Some(grant), ..token() }, None)
        });
        let exchanged = exchange.await.unwrap();
        assert!(matches!(exchanged, Rotation::Done | Rotation::Gone), "{exchanged:?}");
        assert_eq!(copied.await.unwrap(), Rotation::Reused);
        issue.await.unwrap();
        assert_eq!(number(&mut session, &count).await, 0, "a copied login goes on");
    }
}

/// What is issued at the moment in which an account's logins end is ended with them, or not issued.
#[tokio::test]
async fn nothing_is_issued_after_the_end() {
    let Some((database, stores)) = two_stores().await else { return };
    let (mut dice, mut session) = (Dice::new(), session(&database).await);
    for round in 0..30_u128 {
        let before = stores[0].profile(OWNER).await.unwrap().unwrap().version();
        let shown = hash("shown", round);
        assert!(stores[0].write(add(shown, token(), None)).await.unwrap());
        let refresh = hash("refresh", round);
        let grant = Uuid::from_u128(1000 * (round + 1));
        stores[0].write(AddRefreshToken { hash: refresh, token: refresh_token(grant) }).await.unwrap();
        let sign_in = |id: u128, cookie: &str| SignIn {
            session: Uuid::from_u128(id),
            continues: None,
            ends: None,
            cookie: hash(cookie, round),
            browser: hash("browser", round),
            authentication: Authentication { identity: OWNER, method: Method::Password, mfa: false, at: NOW },
            generation: before.generation,
            now: NOW,
            expires: NOW + HOUR,
            forget_browsers: NOW,
        };
        let signed_in = stores[0].write(sign_in(10_000 + round, "cookie")).await.unwrap().unwrap();
        let code = AddCode {
            hash: hash("code", round),
            code: Code {
                client: client(),
                identity: OWNER,
                session: signed_in,
                grant,
                redirect_uri: "r".into(),
                challenge: "c".into(),
                scope: "openid".into(),
                state: None,
                nonce: None,
                offline: true,
                expires: NOW + HOUR,
            },
            cookie: hash("cookie", round),
            forget: NOW,
        };

        let one = &stores[0];
        let tokens = spawn(one, &mut dice, add(hash("token", round), token(), Some(before)));
        let child = Token { parent: Some(shown), ..token() };
        let children = spawn(one, &mut dice, add(hash("child", round), child, None));
        let credential = spawn(one, &mut dice, new_credential(hash("credential", round), Some(shown)));
        let registered = spawn(one, &mut dice, registration_with(endpoint(0), Some(shown), 2));
        let rotated = spawn(one, &mut dice, rotate(refresh, hash("successor", round)));
        let signed = spawn(one, &mut dice, sign_in(20_000 + round, "another cookie"));
        let code = spawn(one, &mut dice, code);
        let ended = spawn(&stores[1], &mut dice, EndEverything { identity: OWNER, now: NOW });
        ended.await.unwrap();
        for issued in [tokens, children, code] {
            issued.await.unwrap();
        }
        credential.await.unwrap();
        registered.await.unwrap();
        rotated.await.unwrap();
        signed.await.unwrap();
        for (what, sql) in [
            ("tokens", "SELECT count(*) FROM tokens"),
            ("credentials", "SELECT count(*) FROM credentials"),
            ("refresh tokens", "SELECT count(*) FROM refresh_tokens"),
            ("sessions", "SELECT count(*) FROM sessions WHERE cookie_hash IS NOT NULL"),
            ("codes", "SELECT count(*) FROM codes"),
        ] {
            assert_eq!(number(&mut session, sql).await, 0, "{what} outlived the end in round {round}");
        }
    }
}

#[tokio::test]
async fn a_token_ends_with_the_one_that_it_was_exchanged_for() {
    let Some((database, stores)) = two_stores().await else { return };
    let (mut dice, mut session) = (Dice::new(), session(&database).await);
    for round in 0..40 {
        let parent = hash("parent", round);
        assert!(stores[0].write(add(parent, token(), None)).await.unwrap());
        let child = Token { parent: Some(parent), ..token() };
        let exchanged = spawn(&stores[0], &mut dice, add(hash("child", round), child, None));
        let end = spawn(&stores[1], &mut dice, EndTokens::One { hash: parent, client: client() });
        let (exchanged, ended) = (exchanged.await.unwrap(), end.await.unwrap());
        assert_eq!(ended, 1 + u64::from(exchanged));
        assert_eq!(number(&mut session, "SELECT count(*) FROM tokens").await, 0);
    }
}

#[tokio::test]
async fn a_code_is_exchanged_once() {
    let Some((database, stores)) = two_stores().await else { return };
    let mut dice = Dice::new();
    for round in 0..15_u128 {
        let id = Uuid::from_u128(round + 1);
        let generation = 0;
        let sign_in = SignIn {
            session: id,
            continues: None,
            ends: None,
            cookie: hash("cookie", round),
            browser: hash("browser", round),
            authentication: Authentication { identity: OWNER, method: Method::Password, mfa: false, at: NOW },
            generation,
            now: NOW,
            expires: NOW + HOUR,
            forget_browsers: NOW,
        };
        stores[0].write(sign_in).await.unwrap().unwrap();
        let code = Code {
            client: client(),
            identity: OWNER,
            session: id,
            grant: id,
            redirect_uri: "r".into(),
            challenge: "c".into(),
            scope: "openid".into(),
            state: None,
            nonce: None,
            offline: true,
            expires: NOW + HOUR,
        };
        let (hash, cookie) = (hash("code", round), hash("cookie", round));
        assert!(stores[0].write(AddCode { hash, code, cookie, forget: NOW }).await.unwrap());
        let both = [0, 1].map(|at| spawn(&stores[at], &mut dice, UseCode { hash, now: NOW }));
        let mut uses = Vec::new();
        for used in both {
            uses.push(used.await.unwrap());
        }
        assert!(uses.contains(&CodeUse::First) && uses.contains(&CodeUse::Repeated), "{uses:?}");
        assert!(stores[0].code_replayed(hash).await.unwrap());
    }
    drop(database);
}

#[tokio::test]
async fn a_subject_is_bound_to_one_identity() {
    let Some((database, stores)) = two_stores().await else { return };
    let mut dice = Dice::new();
    for round in 0..20_u128 {
        let template = stores[0].profile(OWNER).await.unwrap().unwrap();
        let both = [0_u128, 1].map(|at| {
            let identity = IdentityId::from_uuid(Uuid::from_u128(1000 + 2 * round + at));
            let new = Profile {
                id: identity,
                kind: Kind::Person,
                username: format!("person{round}.{at}@example.edu"),
                ..template.clone()
            };
            let bind = BindSubject {
                issuer: "https://idp.example.edu".into(),
                subject: round.to_string(),
                identity,
                new: Some(new),
                now: NOW,
            };
            spawn(&stores[at as usize], &mut dice, bind)
        });
        let mut bound = Vec::new();
        for it in both {
            bound.push(it.await.unwrap());
        }
        assert_eq!(bound.iter().filter(|bound| **bound).count(), 1);
    }
    let mut session = session(&database).await;
    let people = "SELECT count(*) FROM identities WHERE kind = 'person'";
    assert_eq!(number(&mut session, people).await, 20, "who was not bound was not added");
}

/// Whoever is linked to another at the moment in which that one is linked becomes one of the same set.
#[tokio::test]
async fn sets_have_one_first() {
    let Some((database, stores)) = two_stores().await else { return };
    let mut dice = Dice::new();
    let template = stores[0].profile(OWNER).await.unwrap().unwrap();
    let person = |number: u128| IdentityId::from_uuid(Uuid::from_u128(number));
    for round in 0..15_u128 {
        let three = [1, 2, 3].map(|number| person(1000 + 10 * round + number));
        for id in three {
            let username = format!("{id}@example.edu");
            let profile = Profile { id, kind: Kind::Person, username, ..template.clone() };
            stores[0].write(AddPerson { profile, password: None }).await.unwrap().unwrap();
        }
        let [one, two, three] = three;
        let first = spawn(&stores[0], &mut dice, Link { identity: one, primary: Some(two) });
        let second = match round % 2 {
            0 => spawn(&stores[1], &mut dice, Link { identity: two, primary: Some(three) }),
            _ => spawn(&stores[1], &mut dice, Link { identity: two, primary: Some(one) }),
        };
        first.await.unwrap();
        second.await.unwrap();
    }
    let chains = query(
        "SELECT 1 FROM identities i JOIN identities p ON p.id = i.primary_id WHERE p.primary_id IS NOT NULL",
    );
    assert!(chains.fetch_optional(&stores[0].readers).await.unwrap().is_none());
    let linked = "SELECT count(*) FROM identities WHERE primary_id IS NOT NULL";
    assert!(number(&mut session(&database).await, linked).await >= 15);
}
