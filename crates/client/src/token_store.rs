//! The token store that the SDK, upstream's endpoint and ours share: `storage.db`, an SQLite file for its owner only.
//!
//! Tables and namespaces are those of the stock SDK: a login with one of the three programs is a login for all. A token of
//! ours also names the identity service that issued it, in a member that the SDK keeps and does not read: no token is sent to
//! another service.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

/// How long to wait while another process of the user writes.
const BUSY: Duration = Duration::from_secs(5);

/// A token as it is stored. The `Debug` form leaves the secrets out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub resource_server: String,
    pub identity_id: Option<String>,
    pub scope: String,
    pub access_token: String,
    pub refresh_token: Option<String>,
    pub expires_at_seconds: i64,
    pub token_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Extra>,
}

/// The member that the SDK keeps for other programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extra {
    /// The identity service that issued the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farcall_identity_service: Option<String>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("resource_server", &self.resource_server).finish_non_exhaustive()
    }
}

impl Token {
    /// Whether the token may be sent to this identity service and to the compute service beside it.
    pub fn belongs_to(&self, identity: &str) -> bool {
        let known = self.extra.as_ref().and_then(|extra| extra.farcall_identity_service.as_deref());
        known.is_none_or(|known| known == identity)
    }
}

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenStoreError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path}: {error}")]
    Sqlite { path: PathBuf, error: sqlx::Error },
}

/// One namespace of the store.
#[derive(Debug)]
pub struct TokenStore {
    path: PathBuf,
    namespace: String,
    connection: SqliteConnection,
}

impl TokenStore {
    /// Opens the store; creates it if it does not exist.
    pub async fn open(path: &Path, namespace: String) -> Result<Self, TokenStoreError> {
        let io = |error| TokenStoreError::Io { path: path.to_owned(), error };
        if let Some(parent) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(io)?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(io)?;
        let failed = |error| TokenStoreError::Sqlite { path: path.to_owned(), error };
        let options =
            SqliteConnectOptions::new().filename(path).busy_timeout(BUSY).disable_statement_logging();
        let mut connection = options.connect().await.map_err(failed)?;
        // The program that creates the file must create the tables: the SDK only looks whether the file exists.
        for statement in [
            "CREATE TABLE IF NOT EXISTS token_storage (\
             namespace VARCHAR NOT NULL, resource_server VARCHAR NOT NULL, token_data_json VARCHAR NOT NULL, \
             PRIMARY KEY (namespace, resource_server))",
            "CREATE TABLE IF NOT EXISTS sdk_storage_adapter_internal (\
             attribute VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY (attribute))",
            "INSERT OR IGNORE INTO sdk_storage_adapter_internal(attribute, value) \
             VALUES ('globus-sdk.version', '3.65.0'), ('globus-sdk.database_schema_version', '2')",
        ] {
            sqlx::query(statement).execute(&mut connection).await.map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), namespace, connection })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every token of the namespace. A row that is no token counts as absent: the next login replaces it.
    pub async fn tokens(&mut self) -> Result<Vec<Token>, TokenStoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT token_data_json FROM token_storage WHERE namespace = $1 ORDER BY resource_server",
        )
        .bind(&self.namespace)
        .fetch_all(&mut self.connection)
        .await
        .map_err(|error| TokenStoreError::Sqlite { path: self.path.clone(), error })?;
        Ok(rows.iter().filter_map(|(text,)| serde_json::from_str(text).ok()).collect())
    }

    /// Stores tokens; each replaces the one of the same resource server.
    pub async fn store(&mut self, tokens: &[Token]) -> Result<(), TokenStoreError> {
        let failed = |error| TokenStoreError::Sqlite { path: self.path.clone(), error };
        let mut transaction = self.connection.begin().await.map_err(failed)?;
        for token in tokens {
            let text = serde_json::to_string(token).expect("texts and numbers are JSON");
            sqlx::query(
                "REPLACE INTO token_storage(namespace, resource_server, token_data_json) VALUES ($1, $2, $3)",
            )
            .bind(&self.namespace)
            .bind(&token.resource_server)
            .bind(text)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// Removes every token of the namespace.
    pub async fn clear(&mut self) -> Result<(), TokenStoreError> {
        sqlx::query("DELETE FROM token_storage WHERE namespace = $1")
            .bind(&self.namespace)
            .execute(&mut self.connection)
            .await
            .map(drop)
            .map_err(|error| TokenStoreError::Sqlite { path: self.path.clone(), error })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn token(server: &str) -> Token {
        Token {
            resource_server: server.to_owned(),
            identity_id: Some("i".to_owned()),
            scope: "s".to_owned(),
            access_token: "hidden".to_owned(),
            refresh_token: None,
            expires_at_seconds: 1,
            token_type: Some("Bearer".to_owned()),
            extra: Some(Extra { farcall_identity_service: Some("http://a/".to_owned()) }),
        }
    }

    #[tokio::test]
    async fn tokens_stay_in_their_namespace() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("base/storage.db");
        let mut one = TokenStore::open(&path, "user/local".to_owned()).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        one.store(&[token("a"), token("b")]).await.unwrap();
        let newer = Token { expires_at_seconds: 2, ..token("a") };
        one.store(std::slice::from_ref(&newer)).await.unwrap();
        let mut other = TokenStore::open(&path, "user/production".to_owned()).await.unwrap();
        assert_eq!(other.tokens().await.unwrap(), []);
        assert_eq!(one.tokens().await.unwrap(), [newer, token("b")]);
        one.clear().await.unwrap();
        assert_eq!(one.tokens().await.unwrap(), []);
    }

    #[test]
    fn a_token_goes_to_its_own_service_only() {
        assert!(token("a").belongs_to("http://a/"));
        assert!(!token("a").belongs_to("http://b/"));
        assert!(Token { extra: None, ..token("a") }.belongs_to("http://b/"));
        assert!(!format!("{:?}", token("a")).contains("hidden"));
    }
}
