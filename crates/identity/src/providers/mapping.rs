//! Maps a provider's claims to a username, and checks that the provider may vouch for it. Pure.

use serde_json::{Map, Value};

use super::settings::UpstreamSettings;
use crate::people;

/// The longest name, e-mail address and organization that are kept.
const LONGEST: usize = 200;

/// The person that claims describe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub username: String,
    pub name: String,
    pub email: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    #[error("it does not say the person's username")]
    Missing,
    #[error("the e-mail address that would name the person is not verified")]
    Unverified,
    #[error("what it says is no username")]
    Username,
    #[error("it names somebody of a domain that it may not vouch for")]
    Domain,
}

/// The person that `claims` describe.
pub fn person(upstream: &UpstreamSettings, claims: &Map<String, Value>) -> Result<Person, MappingError> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let given = text(&upstream.username_claim).ok_or(MappingError::Missing)?;
    // An unverified address identifies nobody: people can type any into a profile.
    if upstream.username_claim == "email" && claims.get("email_verified") != Some(&Value::Bool(true)) {
        return Err(MappingError::Unverified);
    }
    let whole = match given.contains('@') {
        true => given.to_owned(),
        false => format!("{given}@{}", upstream.domains.first().ok_or(MappingError::Domain)?),
    };
    let username = people::username(&whole).ok_or(MappingError::Username)?;
    if !vouches(upstream, &username) {
        return Err(MappingError::Domain);
    }
    let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(LONGEST).collect::<String>();
    let name = text("name").map_or_else(|| username.clone(), short);
    let email = text("email").filter(|email| email.len() <= LONGEST).map(short);
    Ok(Person { username, name, email })
}

/// Whether `upstream` may vouch for the identity of this username.
pub fn vouches(upstream: &UpstreamSettings, username: &str) -> bool {
    let Some((_, domain)) = username.rsplit_once('@') else { return false };
    upstream.domains.iter().any(|own| own.to_lowercase() == domain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::providers::settings::Accounts;

    fn upstream(claim: &str) -> UpstreamSettings {
        UpstreamSettings {
            name: "campus".into(),
            title: "Campus".into(),
            issuer: "https://idp".into(),
            client_id: "farcall".into(),
            client_secret_file: None,
            scopes: Vec::new(),
            username_claim: claim.into(),
            domains: vec!["Example.edu".into(), "cs.example.edu".into()],
            accounts: Accounts::Open,
        }
    }

    #[test]
    fn nobody_of_another_domain_is_ever_claimed() {
        for (given, known) in [
            ("alice", Ok("alice@example.edu")),
            ("Alice@EXAMPLE.edu", Ok("alice@example.edu")),
            ("alice@cs.example.edu", Ok("alice@cs.example.edu")),
            ("alice@other.edu", Err(MappingError::Domain)),
            ("alice@notexample.edu", Err(MappingError::Domain)),
            ("alice@x.example.edu", Err(MappingError::Domain)),
            ("alice@other.edu@example.edu", Err(MappingError::Username)),
            ("alice\u{0}@example.edu", Err(MappingError::Username)),
            ("alice@example.edu.", Err(MappingError::Username)),
            ("x@clients.auth.globus.org", Err(MappingError::Domain)),
            ("@example.edu", Err(MappingError::Username)),
            ("", Err(MappingError::Missing)),
        ] {
            let claims = json!({"preferred_username": given});
            let found = person(&upstream("preferred_username"), claims.as_object().unwrap());
            assert_eq!(found.map(|person| person.username), known.map(str::to_owned), "{given:?}");
        }
    }

    #[test]
    fn an_email_address_names_somebody_only_when_it_is_verified() {
        for (verified, good) in
            [(json!(true), true), (json!(false), false), (json!("true"), false), (json!(null), false)]
        {
            let claims = json!({"email": "a@example.edu", "email_verified": verified});
            let found = person(&upstream("email"), claims.as_object().unwrap());
            assert_eq!(found.is_ok(), good, "{verified}");
        }
    }

    #[test]
    fn what_is_taken_over_is_plain_and_short() {
        let claims = json!({"preferred_username": "a", "name": "A\u{7}".repeat(999), "email": 7});
        let found = person(&upstream("preferred_username"), claims.as_object().unwrap()).unwrap();
        assert_eq!((found.name.len(), found.email), (LONGEST, None));
    }
}
