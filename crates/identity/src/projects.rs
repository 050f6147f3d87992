//! Projects and authentication policies: made by the owners of endpoints, checked by the service's permissions.
//!
//! A policy belongs to a project, and a project to its administrators, by name or through a group. No other identity sees
//! them. That an endpoint has a policy is no secret, and a refusal names what the policy requires.

use wire::rest::auth::policy::NewPolicy;
use wire::rest::auth::project::NewProject;
use wire::{IdentityId, PolicyId, ProjectId};

use super::{Identity, people};
use crate::{clock, random};
use store::{AddPolicy, AddProject, Policy, Project, ProjectFilter, StoreError};

/// The smallest maximum age of a sign-in, in seconds.
const SHORTEST_TIMEOUT: u64 = 60;
/// The largest, so that sums of seconds cannot overflow.
const LONGEST_TIMEOUT: u64 = 10 * 365 * 24 * 3600;
const NAME_LIMIT: usize = 256;
const DESCRIPTION_LIMIT: usize = 4096;
const MOST_ADMINS: usize = 100;
const MOST_DOMAINS: usize = 100;
/// The most projects that an identity administers, and the most policies in these.
const MOST_PROJECTS: u32 = 100;
const MOST_POLICIES: u32 = 1000;

/// Why a project or policy was not found or not added. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error("{0}")]
    Invalid(String),
    #[error("there are too many")]
    TooMany,
    #[error("there is no such project")]
    UnknownProject,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Identity {
    /// The projects that `identity` administers; the service's administrators see all of them.
    pub async fn projects_of(&self, identity: IdentityId) -> Result<Vec<Project>, StoreError> {
        self.store.projects(self.seen_by(identity).await?).await
    }

    /// The policies of those projects.
    pub async fn policies_of(&self, identity: IdentityId) -> Result<Vec<Policy>, StoreError> {
        self.store.policies(self.seen_by(identity).await?).await
    }

    async fn seen_by(&self, identity: IdentityId) -> Result<ProjectFilter, StoreError> {
        let all = self.administers(identity, clock::now()).await?;
        Ok(if all { ProjectFilter::All } else { ProjectFilter::Of(identity) })
    }

    /// Adds a project of `caller`, who becomes its administrator if it names none.
    pub async fn add_project(&self, caller: IdentityId, new: NewProject) -> Result<Project, ProjectError> {
        line("display_name", &new.display_name, NAME_LIMIT)?;
        let contact = people::username(&new.contact_email);
        contact.ok_or_else(|| ProjectError::Invalid("contact_email is not an e-mail address".to_owned()))?;
        let (mut admins, groups) =
            (new.admin_ids.unwrap_or_default(), new.admin_group_ids.unwrap_or_default());
        if admins.len() + groups.len() > MOST_ADMINS {
            return Err(ProjectError::Invalid(format!("more than {MOST_ADMINS} administrators")));
        }
        if admins.is_empty() && groups.is_empty() {
            admins.push(caller);
        }
        for admin in &admins {
            if self.profile(*admin).await?.is_none() {
                return Err(ProjectError::Invalid(format!("admin_ids: there is no identity {admin}")));
            }
        }
        for group in &groups {
            if !self.group_exists(*group).await? {
                return Err(ProjectError::Invalid(format!("admin_group_ids: there is no group {group}")));
            }
        }
        let set = self.store.identity_set(caller).await?;
        let mine = self.groups_of(caller).await?;
        if !set.iter().any(|own| admins.contains(&own.id)) && !groups.iter().any(|group| mine.contains(group))
        {
            let text = "you would not be an administrator of this project: add your own id to admin_ids";
            return Err(ProjectError::Invalid(text.to_owned()));
        }
        let project = Project {
            id: ProjectId::from_uuid(random::random_id()),
            display_name: new.display_name,
            contact_email: new.contact_email,
            admins,
            admin_groups: groups,
            created: clock::now(),
        };
        let add = AddProject { project: project.clone(), creator: caller, most: MOST_PROJECTS };
        if self.store.write(add).await? { Ok(project) } else { Err(ProjectError::TooMany) }
    }

    /// Adds a policy to a project that `caller` administers.
    pub async fn add_policy(&self, caller: IdentityId, new: NewPolicy) -> Result<Policy, ProjectError> {
        line("display_name", &new.display_name, NAME_LIMIT)?;
        if new.description.len() > DESCRIPTION_LIMIT {
            return Err(ProjectError::Invalid(format!("description: more than {DESCRIPTION_LIMIT} bytes")));
        }
        if new.description.contains('\0') {
            return Err(ProjectError::Invalid("description: holds the character NUL (U+0000)".to_owned()));
        }
        let timeout = new.authentication_assurance_timeout;
        if timeout.is_some_and(|seconds| !(SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(&seconds)) {
            let text = format!("authentication_assurance_timeout: at least {SHORTEST_TIMEOUT} seconds");
            return Err(ProjectError::Invalid(text));
        }
        let (high_assurance, required_mfa) =
            (new.high_assurance.unwrap_or(false), new.required_mfa.unwrap_or(false));
        if required_mfa && !high_assurance {
            return Err(ProjectError::Invalid("required_mfa is for high-assurance policies".to_owned()));
        }
        let include = domains("domain_constraints_include", new.domain_constraints_include)?;
        let exclude = domains("domain_constraints_exclude", new.domain_constraints_exclude)?;
        if !self.projects_of(caller).await?.iter().any(|project| project.id == new.project_id) {
            return Err(ProjectError::UnknownProject);
        }
        let policy = Policy {
            id: PolicyId::from_uuid(random::random_id()),
            project: new.project_id,
            display_name: new.display_name,
            description: new.description,
            high_assurance,
            required_mfa,
            authentication_assurance_timeout: timeout,
            domain_constraints_include: include,
            domain_constraints_exclude: exclude,
            created: clock::now(),
        };
        let add = AddPolicy { policy: policy.clone(), creator: caller, most: MOST_POLICIES };
        if self.store.write(add).await? { Ok(policy) } else { Err(ProjectError::TooMany) }
    }
}

fn line(member: &str, text: &str, limit: usize) -> Result<(), ProjectError> {
    if text.trim().is_empty() || text.len() > limit || text.chars().any(char::is_control) {
        return Err(ProjectError::Invalid(format!("{member}: one line of at most {limit} bytes is needed")));
    }
    Ok(())
}

/// Domains in lower case; `*.example.edu` stands for all below it.
fn domains(member: &str, list: Option<Vec<String>>) -> Result<Option<Vec<String>>, ProjectError> {
    let Some(list) = list else { return Ok(None) };
    let refused = |text: String| ProjectError::Invalid(format!("{member}: {text}"));
    if list.len() > MOST_DOMAINS {
        return Err(refused(format!("more than {MOST_DOMAINS}")));
    }
    let mut domains = Vec::with_capacity(list.len());
    for domain in list {
        let domain = domain.trim().to_lowercase();
        let plain = domain.strip_prefix("*.").unwrap_or(&domain);
        if people::username(&format!("x@{plain}")).is_none() {
            return Err(refused(format!("{domain:?} is not a domain")));
        }
        domains.push(domain);
    }
    Ok(Some(domains))
}
