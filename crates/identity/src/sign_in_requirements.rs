//! What a session must be able to show: as whom, how and how recently somebody signed in. Pure.
//!
//! Applications ask for it when they send somebody to sign in, policies when somebody wants to use what they protect.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use store::{Authentication, Policy};

/// What an application asks of the session when it sends somebody here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    /// The person has to sign in now, whatever was before.
    pub fresh: bool,
    /// Ids or usernames, each of which has to be in the session.
    pub identities: Vec<String>,
    /// Domains, one of which has to be in the session.
    pub domains: Vec<String>,
    /// A second factor.
    pub mfa: bool,
    /// Policies, each of which has to be met.
    pub policies: Vec<Uuid>,
}

/// What a policy says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Domains of usernames that will do; absent: any.
    pub include: Option<Vec<String>>,
    /// Domains that will not do.
    pub exclude: Option<Vec<String>>,
    pub mfa: bool,
    /// How old a sign-in may be.
    pub timeout: Option<SignedDuration>,
}

impl From<&Policy> for Terms {
    fn from(policy: &Policy) -> Terms {
        let seconds = policy.authentication_assurance_timeout;
        Terms {
            include: policy.domain_constraints_include.clone(),
            exclude: policy.domain_constraints_exclude.clone(),
            mfa: policy.required_mfa,
            timeout: seconds.map(|it| SignedDuration::from_secs(i64::try_from(it).unwrap_or(i64::MAX))),
        }
    }
}

/// One identity in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub username: String,
    pub authentication: Authentication,
}

impl Shown {
    fn domain(&self) -> &str {
        self.username.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    fn is(&self, wanted: &str) -> bool {
        self.username.eq_ignore_ascii_case(wanted) || self.authentication.identity.to_string() == wanted
    }
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nobody is signed in.
    Anybody,
    /// To sign in now.
    Again,
    /// To sign in as this one.
    As(String),
    /// An identity of one of these domains.
    Of(Vec<String>),
    /// An identity that is of none of these.
    NotOf(Vec<String>),
    /// To sign in again: the last time is longer ago than this.
    Within(SignedDuration),
    SecondFactor,
    /// A policy that is not there cannot be met.
    Unknown(Uuid),
}

/// What is missing for `demands`, first things first. `terms` are those of the policies; `began` is when the person
/// was sent here.
pub fn unmet(
    demands: &Demands,
    terms: &[(Uuid, Option<Terms>)],
    session: &[Shown],
    began: Timestamp,
    now: Timestamp,
) -> Option<Need> {
    if session.is_empty() {
        return Some(Need::Anybody);
    }
    for wanted in &demands.identities {
        let found = session.iter().find(|shown| shown.is(wanted));
        let Some(found) = found else { return Some(Need::As(wanted.clone())) };
        if demands.fresh && found.authentication.at < began {
            return Some(Need::As(wanted.clone()));
        }
    }
    if demands.fresh && !session.iter().any(|shown| shown.authentication.at >= began) {
        return Some(Need::Again);
    }
    if !demands.domains.is_empty() && !session.iter().any(|shown| among(shown.domain(), &demands.domains)) {
        return Some(Need::Of(demands.domains.clone()));
    }
    if demands.mfa && !session.iter().any(|shown| shown.authentication.mfa) {
        return Some(Need::SecondFactor);
    }
    terms.iter().find_map(|(policy, terms)| match terms {
        Some(terms) => missing(terms, session, now),
        None => Some(Need::Unknown(*policy)),
    })
}

/// What is missing for a policy: one identity of the session has to meet all of it.
pub fn missing(terms: &Terms, session: &[Shown], now: Timestamp) -> Option<Need> {
    if session.is_empty() {
        return Some(Need::Anybody);
    }
    // The need of whoever comes closest: what is left when the domain is right says more than that another's is wrong.
    let mut needs = session.iter().map(|shown| lacking(terms, shown, now)).collect::<Vec<_>>();
    if needs.iter().any(Option::is_none) {
        return None;
    }
    needs.sort_by_key(|need| match need {
        Some(Need::Within(_)) => 0,
        Some(Need::SecondFactor) => 1,
        _ => 2,
    });
    needs.into_iter().next().flatten()
}

fn lacking(terms: &Terms, shown: &Shown, now: Timestamp) -> Option<Need> {
    if let Some(include) = &terms.include
        && !among(shown.domain(), include)
    {
        return Some(Need::Of(include.clone()));
    }
    if let Some(exclude) = &terms.exclude
        && among(shown.domain(), exclude)
    {
        return Some(Need::NotOf(exclude.clone()));
    }
    if terms.mfa && !shown.authentication.mfa {
        return Some(Need::SecondFactor);
    }
    match terms.timeout {
        Some(timeout) if now.duration_since(shown.authentication.at) > timeout => Some(Need::Within(timeout)),
        _ => None,
    }
}

/// Whether `domain` is one of `list`, in which `*.example.edu` stands for all that ends so.
fn among(domain: &str, list: &[String]) -> bool {
    list.iter().any(|one| match one.strip_prefix('*') {
        Some(end) if end.starts_with('.') => {
            domain.len() > end.len() && domain.to_ascii_lowercase().ends_with(&end.to_ascii_lowercase())
        }
        _ => domain.eq_ignore_ascii_case(one),
    })
}

#[cfg(test)]
mod tests {
    use wire::IdentityId;

    use super::*;
    use store::Method;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn shown(username: &str, second: i64, mfa: bool) -> Shown {
        let identity = IdentityId::from_uuid(Uuid::from_u128(u128::from(username.len() as u64)));
        let authentication = Authentication { identity, method: Method::Password, mfa, at: at(second) };
        Shown { username: username.to_owned(), authentication }
    }

    #[test]
    fn what_an_application_may_ask() {
        let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let alice = [shown("alice@a.example", 100, false)];
        let both = [alice[0].clone(), shown("alice.smith@b.example", 200, true)];
        let id = alice[0].authentication.identity.to_string();
        let none = Demands::default();
        let fresh = Demands { fresh: true, ..none.clone() };
        let as_alice = Demands { identities: list(&["ALICE@a.example"]), ..none.clone() };
        let as_id = Demands { identities: vec![id], ..none.clone() };
        let bob = Demands { identities: list(&["bob@a.example"]), ..none.clone() };
        let fresh_alice = Demands { fresh: true, ..as_alice.clone() };
        let of = Demands { domains: list(&["x.example", "b.example"]), ..none.clone() };
        let mfa = Demands { mfa: true, ..none.clone() };
        for (what, demands, session, need) in [
            ("nobody", &none, &[][..], Some(Need::Anybody)),
            ("somebody", &none, &alice, None),
            ("fresh", &fresh, &alice, Some(Need::Again)),
            ("one of two is fresh", &fresh, &both, None),
            ("her name", &as_alice, &alice, None),
            ("her id", &as_id, &alice, None),
            ("another", &bob, &both, Some(Need::As("bob@a.example".into()))),
            ("her, now", &fresh_alice, &both, Some(Need::As("ALICE@a.example".into()))),
            ("a domain", &of, &alice, Some(Need::Of(of.domains.clone()))),
            ("a domain there", &of, &both, None),
            ("second factor", &mfa, &alice, Some(Need::SecondFactor)),
            ("second factor there", &mfa, &both, None),
        ] {
            assert_eq!(unmet(demands, &[], session, at(150), at(300)), need, "{what}");
        }
        let policy = [(Uuid::nil(), None)];
        assert_eq!(unmet(&none, &policy, &alice, at(0), at(0)), Some(Need::Unknown(Uuid::nil())));
    }

    #[test]
    fn what_a_policy_may_ask() {
        let list = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        let minute = SignedDuration::from_mins(1);
        let session = [shown("a@cs.a.example", 100, false), shown("abc@b.example", 10, true)];
        for (what, terms, need) in [
            ("nothing", Terms::default(), None),
            ("included", Terms { include: list(&["b.example"]), ..Terms::default() }, None),
            ("below", Terms { include: list(&["*.a.example"]), ..Terms::default() }, None),
            (
                "not itself below",
                Terms { include: list(&["*.b.example"]), ..Terms::default() },
                Some(Need::Of(vec!["*.b.example".into()])),
            ),
            (
                "excluded",
                Terms { exclude: list(&["b.example", "cs.a.example"]), ..Terms::default() },
                Some(Need::NotOf(vec!["b.example".into(), "cs.a.example".into()])),
            ),
            ("recent", Terms { timeout: Some(minute), ..Terms::default() }, None),
            ("factor", Terms { mfa: true, ..Terms::default() }, None),
            (
                "all of it in one",
                Terms { mfa: true, timeout: Some(minute), ..Terms::default() },
                Some(Need::Within(minute)),
            ),
        ] {
            assert_eq!(missing(&terms, &session, at(150)), need, "{what}");
        }
        assert_eq!(missing(&Terms::default(), &[], at(0)), Some(Need::Anybody));
    }
}
