//! Checks a session against what applications and policies require: who signed in, how, and how recently. Pure.
//!
//! An application states its requirements when it sends a person to sign in; a policy's hold for what it protects.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use store::{Authentication, Policy};

/// What an application requires of the session when it sends a person to sign in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestedSignIn {
    /// The person must sign in now, even if signed in already.
    pub fresh: bool,
    /// Ids or usernames, all of which must be in the session.
    pub identities: Vec<String>,
    /// Domains, one of which must be in the session.
    pub domains: Vec<String>,
    /// A second factor.
    pub mfa: bool,
    /// Policies, all of which must be met.
    pub policies: Vec<Uuid>,
}

/// What a policy requires.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRequirements {
    /// The domains allowed. Absent: any.
    pub include: Option<Vec<String>>,
    /// The domains refused.
    pub exclude: Option<Vec<String>>,
    pub mfa: bool,
    /// The maximum age of the sign-in.
    pub timeout: Option<SignedDuration>,
}

impl From<&Policy> for PolicyRequirements {
    fn from(policy: &Policy) -> PolicyRequirements {
        let seconds = policy.authentication_assurance_timeout;
        PolicyRequirements {
            include: policy.domain_constraints_include.clone(),
            exclude: policy.domain_constraints_exclude.clone(),
            mfa: policy.required_mfa,
            timeout: seconds.map(|it| SignedDuration::from_secs(i64::try_from(it).unwrap_or(i64::MAX))),
        }
    }
}

/// One identity in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedInIdentity {
    pub username: String,
    pub authentication: Authentication,
}

impl SignedInIdentity {
    fn domain(&self) -> &str {
        self.username.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    fn is(&self, wanted: &str) -> bool {
        self.username.eq_ignore_ascii_case(wanted) || self.authentication.identity.to_string() == wanted
    }
}

/// A requirement that the session does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissingRequirement {
    /// Nobody is signed in.
    Anybody,
    /// The person must sign in now.
    Again,
    /// This identity must be in the session.
    As(String),
    /// An identity of one of these domains.
    Of(Vec<String>),
    /// An identity of none of these domains.
    NotOf(Vec<String>),
    /// The last sign-in is older than this.
    Within(SignedDuration),
    SecondFactor,
    /// The policy does not exist, so it cannot be met.
    Unknown(Uuid),
}

/// The first requirement of an application that is not met. `terms` are the requirements of the policies; `began` is when
/// the person was sent here.
pub fn unmet(
    demands: &RequestedSignIn,
    terms: &[(Uuid, Option<PolicyRequirements>)],
    session: &[SignedInIdentity],
    began: Timestamp,
    now: Timestamp,
) -> Option<MissingRequirement> {
    if session.is_empty() {
        return Some(MissingRequirement::Anybody);
    }
    for wanted in &demands.identities {
        let found = session.iter().find(|shown| shown.is(wanted));
        let Some(found) = found else { return Some(MissingRequirement::As(wanted.clone())) };
        if demands.fresh && found.authentication.at < began {
            return Some(MissingRequirement::As(wanted.clone()));
        }
    }
    if demands.fresh && !session.iter().any(|shown| shown.authentication.at >= began) {
        return Some(MissingRequirement::Again);
    }
    if !demands.domains.is_empty() && !session.iter().any(|shown| among(shown.domain(), &demands.domains)) {
        return Some(MissingRequirement::Of(demands.domains.clone()));
    }
    if demands.mfa && !session.iter().any(|shown| shown.authentication.mfa) {
        return Some(MissingRequirement::SecondFactor);
    }
    terms.iter().find_map(|(policy, terms)| match terms {
        Some(terms) => missing(terms, session, now),
        None => Some(MissingRequirement::Unknown(*policy)),
    })
}

/// The requirement of a policy that is not met: one identity of the session must meet all of them.
pub fn missing(
    terms: &PolicyRequirements,
    session: &[SignedInIdentity],
    now: Timestamp,
) -> Option<MissingRequirement> {
    if session.is_empty() {
        return Some(MissingRequirement::Anybody);
    }
    // Report for the identity that comes closest: one with the right domain rather than one with a wrong domain.
    let mut needs = session.iter().map(|shown| lacking(terms, shown, now)).collect::<Vec<_>>();
    if needs.iter().any(Option::is_none) {
        return None;
    }
    needs.sort_by_key(|need| match need {
        Some(MissingRequirement::Within(_)) => 0,
        Some(MissingRequirement::SecondFactor) => 1,
        _ => 2,
    });
    needs.into_iter().next().flatten()
}

fn lacking(
    terms: &PolicyRequirements,
    shown: &SignedInIdentity,
    now: Timestamp,
) -> Option<MissingRequirement> {
    if let Some(include) = &terms.include
        && !among(shown.domain(), include)
    {
        return Some(MissingRequirement::Of(include.clone()));
    }
    if let Some(exclude) = &terms.exclude
        && among(shown.domain(), exclude)
    {
        return Some(MissingRequirement::NotOf(exclude.clone()));
    }
    if terms.mfa && !shown.authentication.mfa {
        return Some(MissingRequirement::SecondFactor);
    }
    match terms.timeout {
        Some(timeout) if now.duration_since(shown.authentication.at) > timeout => {
            Some(MissingRequirement::Within(timeout))
        }
        _ => None,
    }
}

/// Whether `domain` is in `list`, in which `*.example.edu` stands for all its subdomains.
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

    fn shown(username: &str, second: i64, mfa: bool) -> SignedInIdentity {
        let identity = IdentityId::from_uuid(Uuid::from_u128(u128::from(username.len() as u64)));
        let authentication = Authentication { identity, method: Method::Password, mfa, at: at(second) };
        SignedInIdentity { username: username.to_owned(), authentication }
    }

    #[test]
    fn what_an_application_may_ask() {
        let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let alice = [shown("alice@a.example", 100, false)];
        let both = [alice[0].clone(), shown("alice.smith@b.example", 200, true)];
        let id = alice[0].authentication.identity.to_string();
        let none = RequestedSignIn::default();
        let fresh = RequestedSignIn { fresh: true, ..none.clone() };
        let as_alice = RequestedSignIn { identities: list(&["ALICE@a.example"]), ..none.clone() };
        let as_id = RequestedSignIn { identities: vec![id], ..none.clone() };
        let bob = RequestedSignIn { identities: list(&["bob@a.example"]), ..none.clone() };
        let fresh_alice = RequestedSignIn { fresh: true, ..as_alice.clone() };
        let of = RequestedSignIn { domains: list(&["x.example", "b.example"]), ..none.clone() };
        let mfa = RequestedSignIn { mfa: true, ..none.clone() };
        for (what, demands, session, need) in [
            ("nobody", &none, &[][..], Some(MissingRequirement::Anybody)),
            ("somebody", &none, &alice, None),
            ("fresh", &fresh, &alice, Some(MissingRequirement::Again)),
            ("one of two is fresh", &fresh, &both, None),
            ("her name", &as_alice, &alice, None),
            ("her id", &as_id, &alice, None),
            ("another", &bob, &both, Some(MissingRequirement::As("bob@a.example".into()))),
            ("her, now", &fresh_alice, &both, Some(MissingRequirement::As("ALICE@a.example".into()))),
            ("a domain", &of, &alice, Some(MissingRequirement::Of(of.domains.clone()))),
            ("a domain there", &of, &both, None),
            ("second factor", &mfa, &alice, Some(MissingRequirement::SecondFactor)),
            ("second factor there", &mfa, &both, None),
        ] {
            assert_eq!(unmet(demands, &[], session, at(150), at(300)), need, "{what}");
        }
        let policy = [(Uuid::nil(), None)];
        assert_eq!(
            unmet(&none, &policy, &alice, at(0), at(0)),
            Some(MissingRequirement::Unknown(Uuid::nil()))
        );
    }

    #[test]
    fn what_a_policy_may_ask() {
        let list = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        let minute = SignedDuration::from_mins(1);
        let session = [shown("a@cs.a.example", 100, false), shown("abc@b.example", 10, true)];
        for (what, terms, need) in [
            ("nothing", PolicyRequirements::default(), None),
            (
                "included",
                PolicyRequirements { include: list(&["b.example"]), ..PolicyRequirements::default() },
                None,
            ),
            (
                "below",
                PolicyRequirements { include: list(&["*.a.example"]), ..PolicyRequirements::default() },
                None,
            ),
            (
                "not itself below",
                PolicyRequirements { include: list(&["*.b.example"]), ..PolicyRequirements::default() },
                Some(MissingRequirement::Of(vec!["*.b.example".into()])),
            ),
            (
                "excluded",
                PolicyRequirements {
                    exclude: list(&["b.example", "cs.a.example"]),
                    ..PolicyRequirements::default()
                },
                Some(MissingRequirement::NotOf(vec!["b.example".into(), "cs.a.example".into()])),
            ),
            ("recent", PolicyRequirements { timeout: Some(minute), ..PolicyRequirements::default() }, None),
            ("factor", PolicyRequirements { mfa: true, ..PolicyRequirements::default() }, None),
            (
                "all of it in one",
                PolicyRequirements { mfa: true, timeout: Some(minute), ..PolicyRequirements::default() },
                Some(MissingRequirement::Within(minute)),
            ),
        ] {
            assert_eq!(missing(&terms, &session, at(150)), need, "{what}");
        }
        assert_eq!(missing(&PolicyRequirements::default(), &[], at(0)), Some(MissingRequirement::Anybody));
    }
}
