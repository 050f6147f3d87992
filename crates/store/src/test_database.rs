//! Databases for tests. Each test has one of its own: a SQLite file, or, with `FARCALL_TEST_POSTGRES=postgres://…`, a database
//! on that server, which goes with the test.

use std::path::Path;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _};

use jiff::Timestamp;
use wire::{EndpointId, IdentityId};

use crate::secret::Hash;
use crate::{Endpoint, RegisterEndpoint, Servers, Sharing, Store, random};

/// The server on which tests make their databases; absent: they use SQLite.
const SERVER: &str = "FARCALL_TEST_POSTGRES";

/// A database that is made for a test, and a directory for it.
#[derive(Debug)]
pub struct TestDatabase {
    directory: tempfile::TempDir,
    /// The server's URL, and the database's name.
    postgres: Option<(String, String)>,
}

impl TestDatabase {
    /// Makes one on the database that this run of the tests is for.
    pub async fn new() -> TestDatabase {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let Ok(server) = std::env::var(SERVER) else { return TestDatabase { directory, postgres: None } };
        let name = format!("test_{}", random::ordered_id().as_simple());
        execute(&server, format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")).await;
        TestDatabase { directory, postgres: Some((server, name)) }
    }

    /// The same where nothing can be awaited.
    pub fn new_blocking() -> TestDatabase {
        let made = std::thread::spawn(|| runtime().block_on(TestDatabase::new()));
        made.join().expect("a database for the test")
    }

    /// One in a SQLite file, for what only SQLite does.
    pub fn sqlite() -> TestDatabase {
        TestDatabase { directory: tempfile::tempdir().expect("a temporary directory"), postgres: None }
    }

    /// The directory, in which `payloads` is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The database's URL, if it is on a server.
    pub fn url(&self) -> Option<String> {
        let (server, name) = self.postgres.as_ref()?;
        Some(format!("{}/{name}", server.trim_end_matches('/')))
    }

    /// Opens it as its only service.
    pub async fn open(&self) -> Store {
        self.open_as(Sharing::Alone).await
    }

    /// Opens it.
    pub async fn open_as(&self, sharing: Sharing) -> Store {
        let opened = match self.url() {
            None => Store::open(&self.path().join("farcall.db")).await,
            Some(url) => {
                let servers = Servers::from_str(&url).expect("a URL of a server");
                Store::open_postgres(&servers, &self.path().join("payloads"), sharing).await
            }
        };
        opened.expect("a database that opens")
    }
}

/// A first registration of a plain endpoint, by `owner`.
pub fn registration(id: EndpointId, owner: IdentityId) -> RegisterEndpoint {
    let created = Timestamp::UNIX_EPOCH;
    let endpoint = Endpoint {
        id,
        owner,
        name: "ep".into(),
        display_name: None,
        multi_user: false,
        public: false,
        allowed_functions: None,
        admins: Vec::new(),
        is_manager: false,
        created,
        manager: None,
        broker_at: None,
    };
    RegisterEndpoint {
        endpoint,
        metadata: Default::default(),
        choices: None,
        client: None,
        token: None,
        most: 1_000,
        secret: Hash::of("s"),
        now: created,
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some((server, name)) = self.postgres.take() else { return };
        let drop = async move { execute(&server, format!("DROP DATABASE {name} WITH (FORCE)")).await };
        let dropped = std::thread::spawn(|| runtime().block_on(drop));
        // A test that fails shows its own reason.
        let _ = dropped.join();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn execute(server: &str, sql: String) {
    let options = PgConnectOptions::from_str(server).expect("FARCALL_TEST_POSTGRES is a URL");
    let mut connection =
        PgConnection::connect_with(&options).await.expect("a server at FARCALL_TEST_POSTGRES");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("the role may make databases");
}
