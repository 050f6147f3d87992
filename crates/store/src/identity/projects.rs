//! Projects, and the authentication policies they own.

use jiff::Timestamp;
use wire::{GroupId, IdentityId, PolicyId, ProjectId};

use crate::columns::{id, json, key, text};
use crate::database::{Row, query, query_scalar};
use crate::locks::lock_identities;
use crate::{Command, Store, StoreError, Tx};

/// A project: its administrators own its policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    pub id: ProjectId,
    pub display_name: String,
    pub contact_email: String,
    pub admins: Vec<IdentityId>,
    pub admin_groups: Vec<GroupId>,
    pub created: Timestamp,
}

/// What a session has to satisfy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub id: PolicyId,
    pub project: ProjectId,
    pub display_name: String,
    pub description: String,
    pub high_assurance: bool,
    pub required_mfa: bool,
    /// The most seconds since the sign-in. Absent: any age.
    pub authentication_assurance_timeout: Option<u64>,
    /// The domains allowed. Absent: any.
    pub domain_constraints_include: Option<Vec<String>>,
    pub domain_constraints_exclude: Option<Vec<String>>,
    pub created: Timestamp,
}

/// Adds a project. Returns false if its creator administers the most projects allowed.
#[derive(Clone, Debug)]
pub struct AddProject {
    pub project: Project,
    pub creator: IdentityId,
    pub most: u32,
}

impl Command for AddProject {
    type Output = bool;

    async fn run(self, tx: &mut Tx) -> Result<bool, StoreError> {
        if administers(tx, "projects WHERE id", self.creator).await? >= i64::from(self.most) {
            return Ok(false);
        }
        let project = self.project;
        query("INSERT INTO projects (id, display_name, contact_email, created_us) VALUES ($1, $2, $3, $4)")
            .bind(key(project.id.as_uuid()))
            .bind(project.display_name)
            .bind(project.contact_email)
            .bind(project.created.as_microsecond())
            .execute(&mut *tx)
            .await?;
        let identities = project.admins.iter().map(|id| ("identity", key(id.as_uuid())));
        let groups = project.admin_groups.iter().map(|id| ("group", key(id.as_uuid())));
        for (kind, subject) in identities.chain(groups) {
            query(
                "INSERT INTO project_admins (project_id, kind, subject_id) VALUES ($1, $2, $3) \
                 ON CONFLICT (project_id, kind, subject_id) DO NOTHING",
            )
            .bind(key(project.id.as_uuid()))
            .bind(kind)
            .bind(subject)
            .execute(&mut *tx)
            .await?;
        }
        Ok(true)
    }
}

/// Adds a policy. Returns false if its creator administers the most policies allowed.
#[derive(Clone, Debug)]
pub struct AddPolicy {
    pub policy: Policy,
    pub creator: IdentityId,
    pub most: u32,
}

/// How many projects or policies `identity` administers; it gets no more of them until the transaction ends.
async fn administers(
    tx: &mut Tx,
    rows_of_project: &'static str,
    identity: IdentityId,
) -> Result<i64, StoreError> {
    lock_identities(tx, &[identity]).await?;
    let count = format!("SELECT count(*) FROM {rows_of_project} IN ({ADMINISTERED})");
    Ok(query_scalar(count).bind(key(identity.as_uuid())).fetch_one(tx).await?)
}

impl Command for AddPolicy {
    type Output = bool;

    async fn run(self, tx: &mut Tx) -> Result<bool, StoreError> {
        if administers(tx, "policies WHERE project_id", self.creator).await? >= i64::from(self.most) {
            return Ok(false);
        }
        let policy = self.policy;
        let list = |domains: Option<Vec<String>>| domains.map(|domains| text(&domains)).transpose();
        query(
            "INSERT INTO policies (id, project_id, display_name, description, high_assurance, required_mfa, \
             authentication_assurance_timeout, domain_constraints_include_json, domain_constraints_exclude_json, \
             created_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(key(policy.id.as_uuid()))
        .bind(key(policy.project.as_uuid()))
        .bind(policy.display_name)
        .bind(policy.description)
        .bind(policy.high_assurance)
        .bind(policy.required_mfa)
        .bind(policy.authentication_assurance_timeout.and_then(|seconds| i64::try_from(seconds).ok()))
        .bind(list(policy.domain_constraints_include)?)
        .bind(list(policy.domain_constraints_exclude)?)
        .bind(policy.created.as_microsecond())
        .execute(tx)
        .await?;
        Ok(true)
    }
}

/// Which projects and policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectFilter {
    All,
    /// Those that the identity, or one linked with it, administers, itself or through a group.
    Of(IdentityId),
}

impl ProjectFilter {
    /// The SQL after `WHERE project IN`, and the value of its `$1`.
    fn sql(self) -> (&'static str, Vec<u8>) {
        match self {
            ProjectFilter::All => ("SELECT id FROM projects WHERE $1 IS NOT NULL", Vec::new()),
            ProjectFilter::Of(identity) => (ADMINISTERED, key(identity.as_uuid())),
        }
    }
}

const ADMINISTERED: &str = "SELECT p.project_id FROM identities a \
    JOIN identities i ON i.id = coalesce(a.primary_id, a.id) OR i.primary_id = coalesce(a.primary_id, a.id) \
    LEFT JOIN group_members m ON m.identity_id = i.id \
    JOIN project_admins p ON (p.kind = 'identity' AND p.subject_id = i.id) \
        OR (p.kind = 'group' AND p.subject_id = m.group_id) \
    WHERE a.id = $1";

/// The columns of a [`Policy`].
const POLICY: &str = "id, project_id, display_name, description, high_assurance, required_mfa, \
    authentication_assurance_timeout, domain_constraints_include_json, domain_constraints_exclude_json, created_us";

impl Store {
    /// Oldest first.
    pub async fn projects(&self, which: ProjectFilter) -> Result<Vec<Project>, StoreError> {
        let (ids, subject) = which.sql();
        let sql = format!(
            "SELECT id, display_name, contact_email, created_us FROM projects WHERE id IN ({ids}) \
             ORDER BY created_us, id"
        );
        let rows = query(sql).bind(subject).fetch_all(&self.readers).await?;
        let mut projects = Vec::with_capacity(rows.len());
        for row in rows {
            projects.push(self.whole_project(&row).await?);
        }
        Ok(projects)
    }

    async fn whole_project(&self, row: &Row) -> Result<Project, StoreError> {
        let project = id(row, "id")?;
        let admins = query("SELECT kind, subject_id FROM project_admins WHERE project_id = $1")
            .bind(key(project))
            .fetch_all(&self.readers)
            .await?;
        let (mut identities, mut groups) = (Vec::new(), Vec::new());
        for admin in admins {
            match admin.try_get("kind")? {
                "identity" => identities.push(IdentityId::from_uuid(id(&admin, "subject_id")?)),
                "group" => groups.push(GroupId::from_uuid(id(&admin, "subject_id")?)),
                _ => return Err(StoreError::Corrupt("kind")),
            }
        }
        Ok(Project {
            id: ProjectId::from_uuid(project),
            display_name: row.try_get("display_name")?,
            contact_email: row.try_get("contact_email")?,
            admins: identities,
            admin_groups: groups,
            created: crate::columns::time(row, "created_us")?,
        })
    }

    pub async fn policy(&self, policy: PolicyId) -> Result<Option<Policy>, StoreError> {
        let row = query(format!("SELECT {POLICY} FROM policies WHERE id = $1"))
            .bind(key(policy.as_uuid()))
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| policy_of(&row)).transpose()
    }

    /// The policies of those projects, oldest first.
    pub async fn policies(&self, which: ProjectFilter) -> Result<Vec<Policy>, StoreError> {
        let (ids, subject) = which.sql();
        let sql =
            format!("SELECT {POLICY} FROM policies WHERE project_id IN ({ids}) ORDER BY created_us, id");
        let rows = query(sql).bind(subject).fetch_all(&self.readers).await?;
        rows.iter().map(policy_of).collect()
    }
}

fn policy_of(row: &Row) -> Result<Policy, StoreError> {
    let list = |column: &'static str| -> Result<Option<Vec<String>>, StoreError> {
        row.try_get::<Option<&str>>(column)?.map(|text| json(text, column)).transpose()
    };
    let timeout: Option<i64> = row.try_get("authentication_assurance_timeout")?;
    Ok(Policy {
        id: PolicyId::from_uuid(id(row, "id")?),
        project: ProjectId::from_uuid(id(row, "project_id")?),
        display_name: row.try_get("display_name")?,
        description: row.try_get("description")?,
        high_assurance: row.try_get("high_assurance")?,
        required_mfa: row.try_get("required_mfa")?,
        authentication_assurance_timeout: timeout.and_then(|seconds| u64::try_from(seconds).ok()),
        domain_constraints_include: list("domain_constraints_include_json")?,
        domain_constraints_exclude: list("domain_constraints_exclude_json")?,
        created: crate::columns::time(row, "created_us")?,
    })
}
