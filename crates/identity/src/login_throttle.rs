//! Limits password guesses per account and per address. Pure.
//!
//! Every attempt is counted before its password is checked, so that parallel attempts gain nothing. A right one is
//! uncounted again.
//!
//! | counted by | after so many wrong ones | then |
//! |---|---|---|
//! | account, in browsers that never signed in to it | 5 | each makes the next wait twice as long, up to [`LONGEST`] |
//! | account and browser that signed in to it before | 10 | the same |
//! | address, in browsers that never signed in to the account | 50 | one in [`PACE`] |
//!
//! An address can be a whole campus behind one router: it is slowed, never closed. A person whose browser signed in before
//! is not delayed by others, neither by guesses at the account nor by users of the same address.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use crate::http::arrival::network;
use store::secret::Hash;

/// Counts that are kept. Past that half of them go: first those that hold up nobody, of few wrong attempts, long unused.
const MOST: usize = 20_000;
/// The longest wait.
const LONGEST: SignedDuration = SignedDuration::from_mins(15);
/// The time between two attempts from an address that has used its free ones.
const PACE: SignedDuration = SignedDuration::from_secs(10);
/// A count is removed this long after its last attempt.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(2);

/// What attempts are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CountedBy {
    /// The username that was typed, whether or not there is such a person.
    Account(Hash),
    /// The same, in a browser in which that person has signed in before.
    Known { account: Hash, browser: Hash },
    /// The network from which the attempt came.
    Address(IpAddr),
}

impl CountedBy {
    /// The network of `address`: a single IPv6 address costs an attacker nothing.
    pub fn address(address: IpAddr) -> CountedBy {
        CountedBy::Address(network(address))
    }

    /// What an attempt is counted by. `known`: the person has signed in with this browser before.
    pub fn all(account: Hash, browser: Hash, known: bool, address: IpAddr) -> Vec<CountedBy> {
        match known {
            true => vec![CountedBy::Known { account, browser }],
            false => vec![CountedBy::Account(account), CountedBy::address(address)],
        }
    }

    /// How many wrong attempts cause no wait.
    fn free(self) -> u32 {
        match self {
            CountedBy::Account(_) => 5,
            CountedBy::Known { .. } => 10,
            CountedBy::Address(_) => 50,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Count {
    wrong: u32,
    last: Timestamp,
    /// Up to when `wrong` has worn off: it moves by whole [`PACE`]s, however often something is tried.
    worn_at: Timestamp,
    /// Attempts before this are refused.
    until: Timestamp,
}

#[derive(Debug, Default)]
pub struct LoginThrottle(HashMap<CountedBy, Count>);

impl LoginThrottle {
    /// Counts an attempt as wrong. If it must wait, it is not counted, and the wait is returned.
    pub fn begin(&mut self, by: &[CountedBy], now: Timestamp) -> Result<(), SignedDuration> {
        let until = by.iter().filter_map(|by| self.0.get(by)).map(|count| count.until).max();
        if let Some(until) = until.filter(|until| *until > now) {
            return Err(until.duration_since(now));
        }
        for &by in by {
            let mut count = self.count(by, now);
            count.wrong = count.wrong.saturating_add(1);
            count.last = now;
            if let Some(over) = count.wrong.checked_sub(by.free()) {
                let wait = match by {
                    CountedBy::Address(_) => PACE,
                    CountedBy::Account(_) | CountedBy::Known { .. } => {
                        SignedDuration::from_secs(1 << over.min(20)).min(LONGEST)
                    }
                };
                count.until = now.checked_add(wait).unwrap_or(now);
            }
            self.0.insert(by, count);
        }
        Ok(())
    }

    /// The attempt was right: removes the account's count, and the attempt from the address's count.
    pub fn right(&mut self, by: &[CountedBy]) {
        for by in by {
            match by {
                CountedBy::Address(_) => self.take_back(by),
                CountedBy::Account(_) | CountedBy::Known { .. } => {
                    self.0.remove(by);
                }
            }
        }
    }

    /// The password was not checked: removes the attempt from the counts.
    pub fn undone(&mut self, by: &[CountedBy]) {
        by.iter().for_each(|by| self.take_back(by));
    }

    fn take_back(&mut self, by: &CountedBy) {
        if let Some(count) = self.0.get_mut(by) {
            count.wrong = count.wrong.saturating_sub(1);
            count.until = count.last;
            if count.wrong == 0 {
                self.0.remove(by);
            }
        }
    }

    fn count(&mut self, by: CountedBy, now: Timestamp) -> Count {
        let new = Count { wrong: 0, last: now, worn_at: now, until: now };
        if let Some(count) = self.0.get(&by) {
            let since = now.duration_since(count.last);
            return match by {
                _ if since > FORGOTTEN => new,
                // What an address has tried wears off, one attempt after the other.
                CountedBy::Address(_) => {
                    let paces = now.duration_since(count.worn_at).as_secs() / PACE.as_secs();
                    let worn = u32::try_from(paces).unwrap_or_default();
                    let worn_at = count.worn_at.checked_add(PACE * i32::try_from(worn).unwrap_or_default());
                    let worn_at = worn_at.unwrap_or(now);
                    Count { wrong: count.wrong.saturating_sub(worn), worn_at, ..*count }
                }
                CountedBy::Account(_) | CountedBy::Known { .. } => *count,
            };
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, count| now.duration_since(count.last) <= FORGOTTEN);
            if self.0.len() >= MOST {
                self.forget_half(now);
            }
        }
        new
    }

    /// Half at a time: looking at all of them is rare, then.
    fn forget_half(&mut self, now: Timestamp) {
        let rank = |count: &Count| (count.until > now, count.wrong, count.last);
        let mut ranked: Vec<_> = self.0.iter().map(|(by, count)| (rank(count), *by)).collect();
        let half = ranked.len() / 2;
        ranked.select_nth_unstable_by_key(half, |(rank, _)| *rank);
        for (_, by) in &ranked[..half] {
            self.0.remove(by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn account(name: &str) -> CountedBy {
        CountedBy::Account(Hash::of(name))
    }

    #[test]
    fn each_wrong_one_doubles_the_wait_up_to_a_quarter_of_an_hour() {
        let mut throttle = LoginThrottle::default();
        let alice = [account("alice")];
        let mut now = at(0);
        for _ in 0..4 {
            throttle.begin(&alice, now).unwrap();
        }
        let mut waits = Vec::new();
        for _ in 0..14 {
            throttle.begin(&alice, now).unwrap();
            let wait = throttle.begin(&alice, now).unwrap_err();
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits[..6], [1, 2, 4, 8, 16, 32]);
        assert_eq!(waits[10..], [900; 4]);
        assert!(throttle.begin(&[account("bob")], now).is_ok(), "others are not held up");
        let tomorrow = now + SignedDuration::from_hours(24);
        for _ in 0..5 {
            assert!(throttle.begin(&alice, tomorrow).is_ok(), "it is forgotten");
        }
    }

    #[test]
    fn a_right_one_is_forgiven_and_one_that_was_not_looked_at_costs_nothing() {
        let mut throttle = LoginThrottle::default();
        let by = [account("alice"), CountedBy::address("192.0.2.1".parse().unwrap())];
        for _ in 0..200 {
            throttle.begin(&by, at(0)).unwrap();
            throttle.right(&by);
        }
        for _ in 0..200 {
            throttle.begin(&by, at(0)).unwrap();
            throttle.undone(&by);
        }
    }

    #[test]
    fn whoever_was_there_before_is_not_held_up_by_strangers() {
        let mut throttle = LoginThrottle::default();
        let known = [CountedBy::Known { account: Hash::of("alice"), browser: Hash::of("b") }];
        for _ in 0..5 {
            throttle.begin(&[account("alice")], at(0)).unwrap();
        }
        assert!(throttle.begin(&[account("alice")], at(0)).is_err());
        assert!(throttle.begin(&known, at(0)).is_ok());
    }

    #[test]
    fn one_address_guessing_at_many_accounts_is_slowed_and_not_closed() {
        let mut throttle = LoginThrottle::default();
        let network = |n: u32| CountedBy::address(format!("2001:db8::{n:x}").parse().unwrap());
        assert_eq!(network(1), network(2), "one network is one address");
        let (mut tried, mut looked) = (0, 0);
        let mut guess = |now| {
            tried += 1;
            throttle.begin(&[account(&tried.to_string()), network(tried)], now)
        };
        let mut now = at(0);
        for _ in 0..200 {
            match guess(now) {
                Ok(()) => looked += 1,
                Err(wait) => {
                    assert_eq!(wait, PACE, "never longer");
                    now += wait;
                }
            }
        }
        assert_eq!(looked, 50 + 75);
        // After a rest a few are free again.
        now += PACE * 6;
        let free = (0..20).take_while(|_| guess(now).is_ok()).count();
        assert!((5..=7).contains(&free), "{free}");
    }

    #[test]
    fn an_address_wears_off_however_often_people_sign_in_there() {
        let mut throttle = LoginThrottle::default();
        let by = |name: &str| [account(name), CountedBy::address("192.0.2.1".parse().unwrap())];
        for second in 0..2 * 3600 {
            if second % 60 == 0 {
                throttle.begin(&by(&format!("{second}")), at(second)).unwrap();
            }
            if second % 9 == 0 {
                throttle.begin(&by("alice"), at(second)).unwrap();
                throttle.right(&by("alice"));
            }
        }
    }

    #[test]
    fn a_browser_that_signed_in_before_is_not_held_up_by_its_address() {
        let mut throttle = LoginThrottle::default();
        let address = "192.0.2.1".parse().unwrap();
        let by = |name: &str, known| CountedBy::all(Hash::of(name), Hash::of("b"), known, address);
        for n in 0..60 {
            let _ = throttle.begin(&by(&n.to_string(), false), at(0));
            let _ = throttle.begin(&by("alice", false), at(0));
        }
        assert_eq!(throttle.begin(&by("bob", false), at(0)), Err(PACE), "strangers there wait a little");
        assert!(throttle.begin(&by("alice", false), at(0)).is_err());
        assert!(throttle.begin(&by("alice", true), at(0)).is_ok());
        // And not the other way round, either.
        for _ in 0..100 {
            let _ = throttle.begin(&by("mallory", true), at(0));
        }
        assert_eq!(throttle.begin(&by("carol", false), at(0) + PACE), Ok(()));
        assert!(throttle.begin(&by("mallory", true), at(0)).is_err(), "it has its own limit");
    }

    #[test]
    fn it_never_grows_past_its_bound() {
        let mut throttle = LoginThrottle::default();
        for n in 0..u32::try_from(MOST).unwrap() + 50 {
            let now = at(0) + SignedDuration::from_millis(i64::from(n));
            throttle.begin(&[account(&n.to_string())], now).unwrap();
            assert!(throttle.0.len() <= MOST);
        }
        assert!(!throttle.0.contains_key(&account("0")));
    }

    #[test]
    fn nobody_ends_a_wait_by_trying_other_names() {
        let others = i64::try_from(MOST).unwrap() + 50;
        for looked_at in [true, false] {
            let mut throttle = LoginThrottle::default();
            let mut now = at(0);
            for _ in 0..20 {
                throttle.begin(&[account("alice")], now).unwrap();
                now = throttle.0[&account("alice")].until;
            }
            throttle.begin(&[account("alice")], now).unwrap();
            for n in 0..others {
                let by = [account(&n.to_string())];
                throttle.begin(&by, now + SignedDuration::from_millis(n + 1)).unwrap();
                if !looked_at {
                    throttle.undone(&by);
                }
            }
            assert_eq!(looked_at, throttle.0.len() > 1, "what was not looked at leaves nothing");
            assert!(throttle.begin(&[account("alice")], now + LONGEST / 2).is_err(), "{looked_at}");
        }
    }
}
