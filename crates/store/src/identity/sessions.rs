//! Browser sessions: who signed in, when and how; and the browsers in which an identity has signed in before.

use jiff::Timestamp;
use uuid::Uuid;
use wire::IdentityId;

use super::account_status::{AccountVersion, is_current};
use crate::columns::{id, key, time};
use crate::database::{query, query_scalar};
use crate::locks::lock_account;
use crate::secret::Hash;
use crate::{Command, Store, StoreError, Tx};

/// How an identity authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    Password,
    /// Through the site's identity provider of this name.
    Upstream(String),
}

const UPSTREAM: &str = "oidc:";

impl Method {
    pub fn text(&self) -> String {
        match self {
            Method::Password => "password".to_owned(),
            Method::Upstream(name) => format!("{UPSTREAM}{name}"),
        }
    }

    fn read(text: &str) -> Result<Method, StoreError> {
        match text.strip_prefix(UPSTREAM) {
            Some(name) => Ok(Method::Upstream(name.to_owned())),
            None if text == "password" => Ok(Method::Password),
            None => Err(StoreError::Corrupt("method")),
        }
    }
}

/// When and how `identity` last authenticated in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    pub identity: IdentityId,
    pub method: Method,
    /// A second factor was used.
    pub mfa: bool,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: Uuid,
    /// The identity that signed in last.
    pub identity: IdentityId,
    /// When the cookie expires.
    pub expires: Timestamp,
    /// The latest authentication of each identity.
    pub authentications: Vec<Authentication>,
}

/// The most browsers in which one identity is signed in, and in which it is known. Beyond that, the longest unused ones are
/// signed out and forgotten.
const BROWSERS: i64 = 100;

impl Session {
    pub fn authentication(&self, identity: IdentityId) -> Option<&Authentication> {
        self.authentications.iter().find(|it| it.identity == identity)
    }
}

/// Records a sign-in. The browser's session continues under a new cookie if it belongs to the same set of identities and was
/// not ended meanwhile; another person's session ends. Returns the session's id, or nothing if the identity is disabled or
/// its logins were ended since its password was read.
#[derive(Clone, Debug)]
pub struct SignIn {
    pub session: Uuid,
    /// The same person's session in this browser.
    pub continues: Option<Uuid>,
    /// Another person's session in this browser.
    pub ends: Option<Uuid>,
    pub cookie: Hash,
    pub browser: Hash,
    pub authentication: Authentication,
    /// The generation of the identity that was read with its password.
    pub generation: i64,
    pub now: Timestamp,
    pub expires: Timestamp,
    /// Browsers unused since this are forgotten.
    pub forget_browsers: Timestamp,
}

impl Command for SignIn {
    type Output = Option<Uuid>;

    async fn run(self, tx: &mut Tx) -> Result<Option<Uuid>, StoreError> {
        let account = AccountVersion { identity: self.authentication.identity, generation: self.generation };
        if !is_current(tx, account).await? {
            return Ok(None);
        }
        let identity = key(self.authentication.identity.as_uuid());
        forget(tx, self.authentication.identity, self.now).await?;
        if let Some(other) = self.ends {
            SignOut(other).run(tx).await?;
        }
        let mut session = self.session;
        let mut kept = 0;
        if let Some(own) = self.continues {
            let updated = query(
                "UPDATE sessions SET cookie_hash = $2, identity_id = $3, expires_us = $4 \
                 WHERE id = $1 AND cookie_hash IS NOT NULL",
            )
            .bind(key(own))
            .bind(self.cookie.as_bytes())
            .bind(&identity)
            .bind(self.expires.as_microsecond())
            .execute(&mut *tx)
            .await?;
            kept = updated;
            session = if kept == 0 { session } else { own };
        }
        if kept == 0 {
            query(
                "INSERT INTO sessions (id, cookie_hash, identity_id, created_us, expires_us) \
                 VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(key(session))
            .bind(self.cookie.as_bytes())
            .bind(&identity)
            .bind(self.now.as_microsecond())
            .bind(self.expires.as_microsecond())
            .execute(&mut *tx)
            .await?;
        }
        query(
            "INSERT INTO authentications (session_id, identity_id, method, mfa, at_us) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (session_id, identity_id) \
             DO UPDATE SET method = excluded.method, mfa = excluded.mfa, at_us = excluded.at_us",
        )
        .bind(key(session))
        .bind(&identity)
        .bind(self.authentication.method.text())
        .bind(self.authentication.mfa)
        .bind(self.authentication.at.as_microsecond())
        .execute(&mut *tx)
        .await?;
        query("UPDATE identities SET authenticated_us = $2 WHERE id = $1")
            .bind(&identity)
            .bind(self.authentication.at.as_microsecond())
            .execute(&mut *tx)
            .await?;
        query("DELETE FROM known_browsers WHERE seen_us < $1")
            .bind(self.forget_browsers.as_microsecond())
            .execute(&mut *tx)
            .await?;
        query(
            "INSERT INTO known_browsers (browser_hash, identity_id, seen_us) VALUES ($1, $2, $3) \
             ON CONFLICT (browser_hash, identity_id) DO UPDATE SET seen_us = excluded.seen_us",
        )
        .bind(self.browser.as_bytes())
        .bind(&identity)
        .bind(self.now.as_microsecond())
        .execute(&mut *tx)
        .await?;
        for sql in [
            "DELETE FROM known_browsers WHERE identity_id = $1 AND browser_hash IN (SELECT browser_hash \
             FROM known_browsers WHERE identity_id = $1 ORDER BY seen_us DESC LIMIT 9223372036854775807 OFFSET $2)",
            "UPDATE sessions SET cookie_hash = NULL, expires_us = created_us WHERE id IN (SELECT id FROM sessions \
             WHERE identity_id = $1 AND cookie_hash IS NOT NULL ORDER BY expires_us DESC LIMIT 9223372036854775807 OFFSET $2)",
        ] {
            query(sql).bind(&identity).bind(BROWSERS).execute(&mut *tx).await?;
        }
        Ok(Some(session))
    }
}

/// An identity's sessions whose cookie has expired and to which nothing refers.
async fn forget(tx: &mut Tx, identity: IdentityId, now: Timestamp) -> Result<(), StoreError> {
    const ENDED: &str = "SELECT s.id FROM sessions s WHERE s.identity_id = $2 AND s.expires_us < $1 \
        AND NOT EXISTS (SELECT 1 FROM tokens t WHERE t.session_id = s.id) \
        AND NOT EXISTS (SELECT 1 FROM refresh_tokens r WHERE r.session_id = s.id) \
        AND NOT EXISTS (SELECT 1 FROM codes c WHERE c.session_id = s.id)";
    for sql in [
        format!("DELETE FROM authentications WHERE session_id IN ({ENDED})"),
        format!("DELETE FROM sessions WHERE id IN ({ENDED})"),
    ] {
        let sql = query(sql).bind(now.as_microsecond());
        sql.bind(key(identity.as_uuid())).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Signs out of this browser: ends the cookie. Tokens stay until they are revoked.
#[derive(Clone, Debug)]
pub struct SignOut(pub Uuid);

impl Command for SignOut {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        query("UPDATE sessions SET cookie_hash = NULL WHERE id = $1").bind(key(self.0)).execute(tx).await?;
        Ok(())
    }
}

/// Ends an identity's sessions, unused codes and refresh tokens.
#[derive(Clone, Debug)]
pub struct EndSessions(pub IdentityId);

impl Command for EndSessions {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        lock_account(tx, self.0).await?;
        for sql in [
            "UPDATE sessions SET cookie_hash = NULL WHERE id IN \
             (SELECT session_id FROM authentications WHERE identity_id = $1)",
            "DELETE FROM known_browsers WHERE identity_id = $1",
            "DELETE FROM codes WHERE identity_id = $1 OR session_id IN \
             (SELECT session_id FROM authentications WHERE identity_id = $1)",
            "DELETE FROM refresh_tokens WHERE identity_id = $1 OR session_id IN \
             (SELECT session_id FROM authentications WHERE identity_id = $1)",
        ] {
            query(sql).bind(key(self.0.as_uuid())).execute(&mut *tx).await?;
        }
        Ok(())
    }
}

impl Store {
    /// The session of this id, also if its cookie has expired.
    pub async fn session(&self, session: Uuid) -> Result<Option<Session>, StoreError> {
        let row = query("SELECT id, identity_id, expires_us FROM sessions WHERE id = $1")
            .bind(key(session))
            .fetch_optional(&self.readers)
            .await?;
        self.whole(row).await
    }

    /// The session that a browser's cookie opens.
    pub async fn session_by_cookie(
        &self,
        cookie: Hash,
        now: Timestamp,
    ) -> Result<Option<Session>, StoreError> {
        let row = query(
            "SELECT id, identity_id, expires_us FROM sessions WHERE cookie_hash = $1 AND expires_us > $2",
        )
        .bind(cookie.as_bytes())
        .bind(now.as_microsecond())
        .fetch_optional(&self.readers)
        .await?;
        self.whole(row).await
    }

    async fn whole(&self, row: Option<crate::database::Row>) -> Result<Option<Session>, StoreError> {
        let Some(row) = row else { return Ok(None) };
        let session = id(&row, "id")?;
        let rows = query(
            "SELECT identity_id, method, mfa, at_us FROM authentications WHERE session_id = $1 ORDER BY at_us",
        )
        .bind(key(session))
        .fetch_all(&self.readers)
        .await?;
        let authentications = rows
            .iter()
            .map(|row| {
                Ok(Authentication {
                    identity: IdentityId::from_uuid(id(row, "identity_id")?),
                    method: Method::read(row.try_get("method")?)?,
                    mfa: row.try_get("mfa")?,
                    at: time(row, "at_us")?,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Some(Session {
            id: session,
            identity: IdentityId::from_uuid(id(&row, "identity_id")?),
            expires: time(&row, "expires_us")?,
            authentications,
        }))
    }

    /// Whether this identity has signed in with this browser before.
    pub async fn browser_known(&self, browser: Hash, identity: IdentityId) -> Result<bool, StoreError> {
        let found: Option<i64> =
            query_scalar("SELECT seen_us FROM known_browsers WHERE browser_hash = $1 AND identity_id = $2")
                .bind(browser.as_bytes())
                .bind(key(identity.as_uuid()))
                .fetch_optional(&self.readers)
                .await?;
        Ok(found.is_some())
    }
}
