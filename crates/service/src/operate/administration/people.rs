//! Performs `farcall user …`: people, their passwords and linked identities.

use wire::IdentityId;

use super::request::{Password, Removed, Reply, UserRequest};
use super::{AdminError, Administration};
use crate::clock;
use crate::operate::administration::request::UserDetails;
use crate::random;
use identity::end_reason::EndReason;
use identity::{audit, people};
use store::{AddPerson, Kind, Link, Profile, RemoveIdentity, SetDisabled, SetPassword, UpdateProfile};

/// The longest name, e-mail or organization.
const TEXT_LIMIT: usize = 300;

impl Administration {
    pub(super) async fn user(&self, request: UserRequest) -> Result<Reply, AdminError> {
        let store = self.identity.store();
        let (what, user) = match request {
            UserRequest::List => return self.users().await,
            UserRequest::Show { user } => return self.shown(self.person(&user).await?).await,
            UserRequest::Add { username, name, email, organization, administrator, password } => {
                let details = PersonalDetails { name, email, organization };
                ("user add", self.add_user(&username, details, administrator, password).await?)
            }
            UserRequest::Edit { user, name, email, organization, administrator } => {
                let person = self.person(&user).await?;
                let PersonalDetails { name, email, organization } =
                    PersonalDetails { name, email, organization }.checked()?;
                let identity = Some(person.id);
                store.write(UpdateProfile { identity, name, email, organization, administrator }).await?;
                ("user edit", person)
            }
            UserRequest::Enable { user } => {
                let person = self.person(&user).await?;
                store.write(SetDisabled { identity: person.id, disabled: false }).await?;
                ("user enable", person)
            }
            UserRequest::Disable { user } => {
                let person = self.person(&user).await?;
                let change = SetDisabled { identity: person.id, disabled: true };
                self.end_everything(person.id, change, &EndReason::Disabled(person.username.clone())).await?;
                ("user disable", person)
            }
            UserRequest::Reset { user, password } => {
                let person = self.person(&user).await?;
                let hash = self.identity.new_password(&person.username, &password.0).await?;
                let change = SetPassword { identity: person.id, hash, at: clock::now() };
                self.end_everything(person.id, change, &EndReason::LoginEnded).await?;
                ("user reset", person)
            }
            UserRequest::Link { user, with } => {
                let (person, first) = (self.anybody(&user).await?, self.person(&with).await?);
                if person.primary() == first.primary() {
                    return Err(AdminError::Refused(format!("{user} and {with} are linked already")));
                }
                if person.linked_to.is_some() {
                    return Err(AdminError::Refused(format!(
                        "{user} is linked with others: unlink it first"
                    )));
                }
                let link = Link { identity: person.id, primary: Some(first.primary()) };
                // Who it was alone is over: the next sign-in is as the first of the set.
                self.end_everything(person.id, link, &EndReason::LoginEnded).await?;
                ("user link", person)
            }
            UserRequest::Unlink { user } => {
                let person = self.anybody(&user).await?;
                if person.linked_to.is_none() {
                    return Err(AdminError::Refused(format!("{user} is not linked to another")));
                }
                let unlink = Link { identity: person.id, primary: None };
                self.end_everything(person.id, unlink, &EndReason::LoginEnded).await?;
                ("user unlink", person)
            }
            UserRequest::Remove { user } => return self.remove_user(&user).await,
        };
        audit::administered(what, &user.id.to_string(), self.by);
        self.identity.forget_person(user.id);
        self.shown(self.known(user.id).await?).await
    }

    async fn add_user(
        &self,
        username: &str,
        details: PersonalDetails,
        administrator: bool,
        password: Option<Password>,
    ) -> Result<Profile, AdminError> {
        let username = people::username(username).ok_or_else(|| {
            AdminError::Refused(format!("{username:?} is not a username: it has the form name@domain"))
        })?;
        let details = details.checked()?;
        let password = match password {
            Some(Password(password)) => Some(self.identity.new_password(&username, &password).await?),
            None => None,
        };
        let profile = Profile {
            id: IdentityId::from_uuid(random::random_id()),
            kind: Kind::Person,
            name: details.name.unwrap_or_else(|| username.clone()),
            email: details.email,
            organization: details.organization,
            disabled: false,
            administrator,
            linked_to: None,
            generation: 0,
            authenticated: None,
            created: clock::now(),
            username,
        };
        let add = AddPerson { profile: profile.clone(), password };
        let added = self.identity.store().write(add).await?;
        added.map_err(|_| AdminError::Taken(format!("the user {}", profile.username)))?;
        Ok(profile)
    }

    async fn remove_user(&self, user: &str) -> Result<Reply, AdminError> {
        let person = self.person(user).await?;
        let set = self.identity.store().identity_set(person.id).await?;
        if person.linked_to.is_none() && set.len() > 1 {
            return Err(AdminError::Refused(format!("others are linked to {user}: unlink them first")));
        }
        self.end_everything(person.id, RemoveIdentity(person.id), &EndReason::Removed).await?;
        self.identity.forget_person(person.id);
        audit::administered("user remove", &person.id.to_string(), self.by);
        Ok(Reply::Removed(Removed { id: person.id.to_string(), name: person.username }))
    }

    async fn users(&self) -> Result<Reply, AdminError> {
        let mut users = Vec::new();
        for person in self.identity.store().people().await? {
            users.push(self.user_details(person).await?);
        }
        Ok(Reply::Users(users))
    }

    async fn shown(&self, person: Profile) -> Result<Reply, AdminError> {
        Ok(Reply::User(self.user_details(person).await?))
    }

    async fn user_details(&self, person: Profile) -> Result<UserDetails, AdminError> {
        let store = self.identity.store();
        let set = store.identity_set(person.id).await?;
        let groups = store.groups_of(person.id).await?;
        let password = store.password(person.id).await?.is_some();
        Ok(UserDetails::new(person, &set, groups, password))
    }

    async fn known(&self, id: IdentityId) -> Result<Profile, AdminError> {
        let found = self.identity.profile(id).await?;
        found.ok_or_else(|| AdminError::Unknown(format!("identity {id}")))
    }

    /// Finds a person by username or id.
    async fn person(&self, user: &str) -> Result<Profile, AdminError> {
        let found = self.anybody(user).await?;
        if found.kind == Kind::Client {
            return Err(AdminError::Refused(format!("{user} is a client: see `farcall client`")));
        }
        Ok(found)
    }

    /// Finds a person or client by username or id.
    pub(super) async fn anybody(&self, user: &str) -> Result<Profile, AdminError> {
        let found = match user.parse::<IdentityId>() {
            Ok(id) => self.identity.profile(id).await?,
            Err(_) => self.identity.profile_named(user).await?,
        };
        found.ok_or_else(|| AdminError::Unknown(format!("user {user}")))
    }
}

/// The details of a person.
struct PersonalDetails {
    name: Option<String>,
    email: Option<String>,
    organization: Option<String>,
}

impl PersonalDetails {
    fn checked(self) -> Result<PersonalDetails, AdminError> {
        for text in [&self.name, &self.email, &self.organization].into_iter().flatten() {
            plain(text)?;
        }
        Ok(self)
    }
}

/// Refuses text that a table or page can't show in one line.
pub(super) fn plain(text: &str) -> Result<(), AdminError> {
    if text.trim().is_empty() || text.len() > TEXT_LIMIT || text.chars().any(char::is_control) {
        return Err(AdminError::Refused(format!("{text:?} is not one line of at most {TEXT_LIMIT} bytes")));
    }
    Ok(())
}
