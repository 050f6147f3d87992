//! Tests of several processes that write to one database: two stores, whose commands meet at random.
//!
//! They need a PostgreSQL server, `FARCALL_TEST_POSTGRES`; without one they do nothing. What they draw depends on a seed that a
//! failing test shows; `FARCALL_TEST_SEED` repeats it.

mod accounts;
mod readers;
mod schema;
mod tasks;
mod writer;

use std::future::Future;

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::test_database::TestDatabase;
use crate::{Sharing, Store, random};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A database on a server. Nothing without a server.
async fn database() -> Option<TestDatabase> {
    let database = TestDatabase::new().await;
    if database.url().is_none() {
        eprintln!("not run: it needs a PostgreSQL server, FARCALL_TEST_POSTGRES");
        return None;
    }
    Some(database)
}

/// Two stores on one database, as two processes have them, with the accounts and endpoints of the other tests.
async fn two_stores() -> Option<(TestDatabase, [Store; 2])> {
    let database = database().await?;
    let one = crate::tests::prepared(database.open_as(Sharing::Shared).await).await;
    let other = database.open_as(Sharing::Shared).await.with_files_from(usize::MAX);
    Some((database, [one.with_files_from(usize::MAX), other]))
}

/// A session beside the stores.
async fn session(database: &TestDatabase) -> PgConnection {
    PgConnection::connect(&database.url().unwrap()).await.unwrap()
}

/// What a query of one number answers.
async fn number(session: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(session).await.unwrap()
}

/// Runs both at the same time, on tasks of their own.
async fn race<A, B>(one: A, other: B) -> (A::Output, B::Output)
where
    A: Future<Output: Send> + Send + 'static,
    B: Future<Output: Send> + Send + 'static,
{
    let (one, other) = (tokio::spawn(one), tokio::spawn(other));
    (one.await.unwrap(), other.await.unwrap())
}

/// Numbers that look random, and repeat with their seed (SplitMix64).
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn new() -> Dice {
        let given = std::env::var("FARCALL_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| random::process_number().cast_unsigned());
        eprintln!("FARCALL_TEST_SEED={seed}");
        Dice(seed)
    }

    /// Others, for another task of the test.
    fn split(&mut self) -> Dice {
        Dice(self.roll())
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound as u64).unwrap()
    }

    /// Some of `all`, in any order.
    fn some<T: Clone>(&mut self, all: &[T]) -> Vec<T> {
        let mut left = all.to_vec();
        let count = self.below(left.len() + 1);
        (0..count).map(|_| left.swap_remove(self.below(left.len()))).collect()
    }

    /// Lets others go first, or not.
    async fn pause(&mut self) {
        for _ in 0..self.below(4) {
            tokio::task::yield_now().await;
        }
        if self.below(4) == 0 {
            tokio::time::sleep(std::time::Duration::from_micros(self.roll() % 2000)).await;
        }
    }
}
