//! The options of `configure` about authentication policies and high assurance.

use clap::Args;

use crate::exit::{CommandResult, Failure};

/// The names that 3.8 and 4.x give a policy unless told otherwise: they alone ask for no policy.
const USUAL_NAME: &str = "Globus Compute Authentication Policy";
const USUAL_DESCRIPTION: &str = "This policy was created automatically by Globus Compute.";

#[derive(Debug, Args)]
pub(super) struct PolicyOptions {
    /// Make a high-assurance endpoint
    #[arg(long, hide = true)]
    pub(super) high_assurance: bool,
    /// The authentication policy that users of the endpoint must meet
    #[arg(long, value_name = "UUID", hide = true)]
    pub(super) auth_policy: Option<String>,
    /// The subscription that the endpoint belongs to
    #[arg(long, value_name = "UUID", hide = true)]
    pub(super) subscription_id: Option<String>,
    #[arg(long, hide = true)]
    auth_policy_project_id: Option<String>,
    #[arg(long, hide = true)]
    auth_policy_display_name: Option<String>,
    #[arg(long, hide = true)]
    auth_policy_mfa_required: bool,
    #[arg(long, hide = true)]
    auth_policy_description: Option<String>,
    #[arg(long, hide = true)]
    allowed_domains: Option<String>,
    #[arg(long, hide = true)]
    excluded_domains: Option<String>,
    #[arg(long, hide = true)]
    auth_timeout: Option<u64>,
}

impl PolicyOptions {
    /// Refuses contradictions, in upstream's words and order, and the creation of policies.
    pub(super) fn check(&self) -> CommandResult {
        let creates = self.creates();
        if creates.is_some() && self.auth_policy.is_some() {
            return Err(Failure::error(
                "Cannot specify an existing auth policy and create a new one at the same time",
            ));
        }
        if self.high_assurance
            && (self.subscription_id.is_none() || creates.is_none() && self.auth_policy.is_none())
        {
            return Err(Failure::error(
                "High Assurance(HA) endpoints require both a HA policy and a HA subscription id",
            ));
        }
        if self.auth_policy_mfa_required && creates.is_none() {
            return Err(Failure::error("MFA may only be specified when creating a policy"));
        }
        if self.auth_policy_mfa_required && !self.high_assurance {
            return Err(Failure::error("MFA may only be enabled for High Assurance(HA) policies"));
        }
        match creates {
            Some(option) => Err(Failure::error(format!(
                "{option}: creating an authentication policy is not part of this version yet; meanwhile let the \
                 service's own rules decide who may use the endpoint"
            ))),
            None => Ok(()),
        }
    }

    /// The first option that asks for a new policy.
    fn creates(&self) -> Option<&'static str> {
        let other = |given: &Option<String>, usual| given.as_deref().is_some_and(|given| given != usual);
        [
            (self.auth_policy_project_id.is_some(), "--auth-policy-project-id"),
            (other(&self.auth_policy_display_name, USUAL_NAME), "--auth-policy-display-name"),
            (other(&self.auth_policy_description, USUAL_DESCRIPTION), "--auth-policy-description"),
            (self.allowed_domains.is_some(), "--allowed-domains"),
            (self.excluded_domains.is_some(), "--excluded-domains"),
            (self.auth_timeout.is_some(), "--auth-timeout"),
        ]
        .into_iter()
        .find_map(|(given, option)| given.then_some(option))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: PolicyOptions,
    }

    #[test]
    fn contradictions_are_refused_in_upstreams_words() {
        let id = "2340174a-1a0e-46d8-a958-7c3ddf2c834a";
        for (words, expected) in [
            (format!("--auth-policy {id}"), ""),
            (format!("--auth-policy {id} --allowed-domains x.org"), "Cannot specify an existing auth policy"),
            (format!("--high-assurance --auth-policy {id}"), "High Assurance(HA) endpoints require both"),
            (format!("--high-assurance --subscription-id {id}"), "High Assurance(HA) endpoints require both"),
            (format!("--high-assurance --subscription-id {id} --auth-policy {id}"), ""),
            ("--auth-policy-mfa-required".to_owned(), "MFA may only be specified when creating a policy"),
            (
                "--auth-policy-mfa-required --auth-timeout 60".to_owned(),
                "MFA may only be enabled for High Assurance(HA) policies",
            ),
            ("--excluded-domains x.org".to_owned(), "--excluded-domains: creating an authentication policy"),
            ("--auth-timeout 0".to_owned(), "--auth-timeout: creating an authentication policy"),
        ] {
            let line = Line::parse_from(["configure"].into_iter().chain(words.split_whitespace()));
            let text =
                line.options.check().err().map(|failure| failure.bare().to_owned()).unwrap_or_default();
            assert!(text.starts_with(expected) && text.is_empty() == expected.is_empty(), "{words}: {text}");
        }
    }
}
