//! Access tokens, by their hash.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;
use wire::{ClientId, IdentityId};

use super::account_status::{AccountVersion, is_active, is_current};
use super::codes::remove_expired;
use crate::columns::{id, key, time};
use crate::database::{StatementBuilder, query, query_scalar};
use crate::locks::lock_account;
use crate::secret::Hash;
use crate::{Command, Store, StoreError, Tx};

/// The most tokens of one identity; the oldest are removed at the latest some hundred tokens later.
const MOST: i64 = 10_000;
/// The most expired tokens that are removed at a time: more than are made meanwhile.
const REMOVED_AT_A_TIME: i64 = 100;

/// How long after its expiry a token is kept, to tell its holder that it expired.
const EXPIRED_KEPT_FOR: SignedDuration = SignedDuration::from_hours(24 * 7);

/// What a token permits, and to whom it was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub identity: IdentityId,
    /// The client that asked for it.
    pub client: ClientId,
    /// Space-separated, as issued.
    pub scope: String,
    pub resource_server: String,
    pub issued: Timestamp,
    pub expires: Timestamp,
    /// The session of the person's sign-in, if there was one.
    pub session: Option<Uuid>,
    /// The id shared by all tokens of one code: they end together.
    pub grant: Option<Uuid>,
    /// The token that a resource server exchanged for this one, which ends with it.
    pub parent: Option<Hash>,
}

impl Token {
    pub fn covers(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|own| own == scope)
    }
}

/// Adds tokens of one identity and one application, all or none, and removes tokens that expired long ago. Returns false if
/// the identity or the application is disabled, if the parent token has ended, or if the application's logins were ended
/// since its secret was read.
#[derive(Clone, Debug)]
pub struct AddTokens {
    pub tokens: Vec<(Hash, Token)>,
    /// The application, if it has shown a secret.
    pub shown_by: Option<AccountVersion>,
}

impl Command for AddTokens {
    type Output = bool;

    async fn run(self, tx: &mut Tx) -> Result<bool, StoreError> {
        let Some((hash, first)) = self.tokens.first() else { return Ok(true) };
        if let Some(account) = self.shown_by
            && !is_current(tx, account).await?
        {
            return Ok(false);
        }
        if !is_active(tx, first.identity, Some(first.client), first.parent).await? {
            return Ok(false);
        }
        remove_expired(tx, "tokens", first.issued - EXPIRED_KEPT_FOR, REMOVED_AT_A_TIME).await?;
        // Finding the oldest takes as many steps as there are tokens: it is done now and then.
        if hash.is_one_in_256() {
            query(
                "DELETE FROM tokens WHERE hash IN (SELECT hash FROM tokens WHERE identity_id = $1 \
                 ORDER BY issued_us DESC LIMIT 9223372036854775807 OFFSET $2)",
            )
            .bind(key(first.identity.as_uuid()))
            .bind(MOST)
            .execute(&mut *tx)
            .await?;
        }
        for (hash, token) in self.tokens {
            query(
                "INSERT INTO tokens (hash, identity_id, client_id, scope, resource_server, issued_us, expires_us, \
                 session_id, grant_id, parent_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            )
            .bind(hash.as_bytes())
            .bind(key(token.identity.as_uuid()))
            .bind(key(token.client.as_uuid()))
            .bind(token.scope)
            .bind(token.resource_server)
            .bind(token.issued.as_microsecond())
            .bind(token.expires.as_microsecond())
            .bind(token.session.map(key))
            .bind(token.grant.map(key))
            .bind(token.parent.map(|parent| parent.as_bytes().to_vec()))
            .execute(&mut *tx)
            .await?;
        }
        Ok(true)
    }
}

/// Ends tokens, and the dependent tokens that came from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndTokens {
    /// This one, if it is `client`'s.
    One { hash: Hash, client: ClientId },
    /// Those that act for the identity, and those issued to it as a client.
    Of(IdentityId),
    /// Those issued to a client, with its codes and refresh tokens.
    Client(ClientId),
    /// Those that came from one code.
    Grant(Uuid),
    /// Those of one session.
    Session(Uuid),
}

impl EndTokens {
    /// Whether `token`, whose hash is `hash`, is one of them.
    pub fn names(&self, hash: &Hash, token: &Token) -> bool {
        match *self {
            EndTokens::One { hash: one, client } => *hash == one && token.client == client,
            EndTokens::Of(identity) => {
                token.identity == identity || token.client.as_uuid() == identity.as_uuid()
            }
            EndTokens::Client(client) => token.client == client,
            EndTokens::Grant(grant) => token.grant == Some(grant),
            EndTokens::Session(session) => token.session == Some(session),
        }
    }
}

impl Command for EndTokens {
    /// How many ended.
    type Output = u64;

    async fn run(self, tx: &mut Tx) -> Result<u64, StoreError> {
        match self {
            EndTokens::Of(identity) => lock_account(tx, identity).await?,
            EndTokens::Client(client) => lock_account(tx, IdentityId::from_uuid(*client.as_uuid())).await?,
            EndTokens::One { .. } | EndTokens::Grant(_) | EndTokens::Session(_) => {}
        }
        let (which, values): (&str, Vec<Vec<u8>>) = match self {
            EndTokens::One { hash, client } => {
                ("hash = $1 AND client_id = $2", vec![hash.as_bytes().to_vec(), key(client.as_uuid())])
            }
            EndTokens::Of(identity) => ("identity_id = $1 OR client_id = $1", vec![key(identity.as_uuid())]),
            EndTokens::Client(client) => ("client_id = $1", vec![key(client.as_uuid())]),
            EndTokens::Grant(grant) => ("grant_id = $1", vec![key(grant)]),
            EndTokens::Session(session) => ("session_id = $1", vec![key(session)]),
        };
        if let EndTokens::Client(client) = self {
            for sql in
                ["DELETE FROM codes WHERE client_id = $1", "DELETE FROM refresh_tokens WHERE client_id = $1"]
            {
                query(sql).bind(key(client.as_uuid())).execute(&mut *tx).await?;
            }
        }
        let sql = format!(
            "WITH RECURSIVE ended (hash) AS (SELECT hash FROM tokens WHERE {which} \
             UNION SELECT t.hash FROM tokens t JOIN ended e ON t.parent_hash = e.hash) \
             DELETE FROM tokens WHERE hash IN (SELECT hash FROM ended)"
        );
        if tx.needs_locks() {
            return end_with_later_dependents(tx, sql, values).await;
        }
        let mut query = query(sql);
        for value in values {
            query = query.bind(value);
        }
        Ok(query.execute(tx).await?)
    }
}

/// Ends tokens with the statement `sql`; and those for which they were exchanged while it waited for their rows.
async fn end_with_later_dependents(
    tx: &mut Tx,
    sql: String,
    values: Vec<Vec<u8>>,
) -> Result<u64, StoreError> {
    let mut delete = query_scalar::<Vec<u8>>(sql + " RETURNING hash");
    for value in values {
        delete = delete.bind(value);
    }
    let mut ended = delete.fetch_all(&mut *tx).await?;
    let mut count = 0;
    while !ended.is_empty() {
        count += ended.len() as u64;
        let mut dependents = StatementBuilder::new("DELETE FROM tokens WHERE parent_hash");
        dependents.push_in(ended.into_iter());
        let dependents = dependents.push(" RETURNING hash").build().fetch_all(&mut *tx).await?;
        let hashes = dependents.iter().map(|row| row.try_get::<Vec<u8>>("hash"));
        ended = hashes.collect::<Result<_, _>>()?;
    }
    Ok(count)
}

impl Store {
    pub async fn token(&self, hash: Hash) -> Result<Option<Token>, StoreError> {
        let row = query(
            "SELECT identity_id, client_id, scope, resource_server, issued_us, expires_us, session_id, grant_id, \
             parent_hash FROM tokens WHERE hash = $1",
        )
        .bind(hash.as_bytes())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let optional = |column: &'static str| match row.try_get::<Option<&[u8]>>(column)? {
            Some(_) => id(&row, column).map(Some),
            None => Ok(None),
        };
        Ok(Some(Token {
            identity: IdentityId::from_uuid(id(&row, "identity_id")?),
            client: ClientId::from_uuid(id(&row, "client_id")?),
            scope: row.try_get("scope")?,
            resource_server: row.try_get("resource_server")?,
            issued: time(&row, "issued_us")?,
            expires: time(&row, "expires_us")?,
            session: optional("session_id")?,
            grant: optional("grant_id")?,
            parent: row
                .try_get::<Option<&[u8]>>("parent_hash")?
                .map(|bytes| Hash::from_stored(bytes).ok_or(StoreError::Corrupt("parent_hash")))
                .transpose()?,
        }))
    }
}
