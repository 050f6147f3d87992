//! Performs `farcall endpoint …`: every endpoint of the service, whoever owns it.

use jiff::{SignedDuration, Timestamp};
use wire::EndpointId;

use super::request::{Dropped, EndpointDetails, EndpointRequest, Removed, Reply};
use super::{AdminError, Administration};
use crate::clock;
use crate::endpoint_management::EndpointManagement;
use store::{EndpointSummary, Which};

/// Endpoints in one answer.
const LISTED: usize = 10_000;
/// The longest lock, in minutes: a year.
const LONGEST: u32 = 366 * 24 * 60;

impl Administration {
    pub(super) async fn endpoint(&self, request: EndpointRequest) -> Result<Reply, AdminError> {
        let store = self.identity.store();
        let management = EndpointManagement { store, dispatch: self.dispatch.as_ref(), by: self.by };
        match request {
            EndpointRequest::List => {
                let lines = store.endpoint_summaries(Which::All, LISTED).await?;
                Ok(Reply::Endpoints(lines.into_iter().map(|line| self.endpoint_details(line)).collect()))
            }
            EndpointRequest::Show { endpoint } => self.shown_endpoint(&endpoint).await,
            EndpointRequest::Lock { endpoint, minutes } => {
                if !(1..=LONGEST).contains(&minutes) {
                    let text = format!("{minutes} minutes are not between 1 and {LONGEST}");
                    return Err(AdminError::Refused(text));
                }
                let until = clock::now() + SignedDuration::from_mins(minutes.into());
                management.lock(self.found_endpoint(&endpoint).await?.id, until).await?;
                self.shown_endpoint(&endpoint).await
            }
            EndpointRequest::Unlock { endpoint } => {
                management.unlock(self.found_endpoint(&endpoint).await?.id).await?;
                self.shown_endpoint(&endpoint).await
            }
            EndpointRequest::Drop { endpoint } => {
                let id = self.found_endpoint(&endpoint).await?.id;
                let dropped = management.drop_waiting(id).await?;
                Ok(Reply::Dropped(Dropped { endpoint: id.to_string(), dropped }))
            }
            EndpointRequest::Delete { endpoint } => {
                let found = self.found_endpoint(&endpoint).await?;
                management.delete(found.id).await?;
                Ok(Reply::Removed(Removed { id: found.id.to_string(), name: found.name }))
            }
        }
    }

    async fn shown_endpoint(&self, endpoint: &str) -> Result<Reply, AdminError> {
        Ok(Reply::Endpoint(self.endpoint_details(self.found_endpoint(endpoint).await?)))
    }

    async fn found_endpoint(&self, endpoint: &str) -> Result<EndpointSummary, AdminError> {
        let unknown = || AdminError::Unknown(format!("endpoint {endpoint}"));
        let id: EndpointId = endpoint.parse().map_err(|_| unknown())?;
        self.identity.store().endpoint_summaries(Which::One(id), 1).await?.pop().ok_or_else(unknown)
    }

    fn endpoint_details(&self, line: EndpointSummary) -> EndpointDetails {
        let locked_until = line.locked_until.filter(|until| *until > clock::now());
        let status = match &self.dispatch {
            _ if locked_until.is_some() => "locked",
            None => "unknown",
            Some(dispatch) if dispatch.online(line.id) => "online",
            Some(_) => "offline",
        };
        EndpointDetails {
            id: line.id.to_string(),
            name: line.name,
            display_name: line.display_name,
            owner: line.owner_name.unwrap_or_else(|| line.owner.to_string()),
            manager: line.manager.map(|manager| manager.to_string()),
            status: status.to_owned(),
            locked_until: locked_until.as_ref().map(Timestamp::to_string),
            waiting: line.waiting,
            taken: line.taken,
            created: line.created.to_string(),
        }
    }
}
