//! The tables of identity: people, clients, sessions, tokens, credentials, projects, groups.

pub(crate) mod account_status;
mod clients;
mod codes;
pub(crate) mod credentials;
mod end_everything;
mod people;
mod projects;
mod refresh_tokens;
mod sessions;
mod subjects;
mod tokens;
mod user_groups;

pub use account_status::AccountVersion;
pub use clients::{AddClient, Client, NativeApp, PutNativeApp, RemoveNativeApp, SetSecret};
pub use codes::{AddCode, Code, CodeUse, UseCode};
pub use credentials::{Credential, Holder, NewClientCredential, RemoveOlderCredentials};
pub use end_everything::{ConnectionsToClose, EndEverything, EndEverythingFor};
pub use people::{
    AddPerson, Kind, Link, NameTaken, Profile, RecordAuthentication, RemoveIdentity, SetDisabled,
    SetPassword, UpdateProfile,
};
pub use projects::{AddPolicy, AddProject, Policy, Project, ProjectFilter};
pub use refresh_tokens::{AddRefreshToken, RefreshToken, RevokeRefreshToken, Rotate, Rotation};
pub use sessions::{Authentication, EndSessions, Method, Session, SignIn, SignOut};
pub use subjects::BindSubject;
pub use tokens::{AddTokens, EndTokens, Token};
pub use user_groups::{AddMember, AddUserGroup, RemoveMember, RemoveUserGroup, UserGroup};
