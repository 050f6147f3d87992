//! Registered functions. Code is stored once, however often it is registered and called.

use std::collections::HashMap;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use wire::rest::function::Meta;
use wire::{FunctionId, GroupId, IdentityId};

use crate::columns::{ROWS, id, json, key, text, time};
use crate::database::{Row, StatementBuilder, query};
use crate::{Command, Store, StoreError, Tx};

#[derive(Clone, Debug)]
pub struct Function {
    pub id: FunctionId,
    pub owner: IdentityId,
    pub name: String,
    /// The packed buffer that starts every task of this function.
    pub code: String,
    pub description: Option<String>,
    pub public: bool,
    /// Whose members may call it beside the owner.
    pub group: Option<GroupId>,
    pub metadata: Meta,
    /// The interpreter that registered it, such as `3.11.7`.
    pub python: Option<String>,
    pub created: Timestamp,
}

impl Function {
    pub fn access(&self) -> FunctionAccess {
        FunctionAccess { owner: self.owner, public: self.public, group: self.group }
    }
}

#[derive(Clone, Debug)]
pub struct AddFunction(pub Function);

impl Command for AddFunction {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let function = self.0;
        let hash = Sha256::digest(function.code.as_bytes()).to_vec();
        // On PostgreSQL the row is written again to be locked: nobody deletes the code until the function is committed.
        let code = match tx.needs_locks() {
            false => "INSERT INTO function_code (hash, code) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING",
            true => {
                "INSERT INTO function_code (hash, code) VALUES ($1, $2) \
                 ON CONFLICT (hash) DO UPDATE SET hash = excluded.hash"
            }
        };
        query(code).bind(&hash).bind(function.code).execute(&mut *tx).await?;
        query(
            "INSERT INTO functions \
             (id, owner_id, name, code_hash, description, public, group_id, metadata_json, python, created_us) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(key(function.id.as_uuid()))
        .bind(key(function.owner.as_uuid()))
        .bind(function.name)
        .bind(hash)
        .bind(function.description)
        .bind(function.public)
        .bind(function.group.map(|group| key(group.as_uuid())))
        .bind(text(&function.metadata)?)
        .bind(function.python)
        .bind(function.created.as_microsecond())
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Deletes a function, and its code unless another function has the same.
#[derive(Clone, Debug)]
pub struct DeleteFunction(pub FunctionId);

impl Command for DeleteFunction {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let row = query("DELETE FROM functions WHERE id = $1 RETURNING code_hash")
            .bind(key(self.0.as_uuid()))
            .fetch_optional(&mut *tx)
            .await?;
        let Some(row) = row else { return Ok(()) };
        if tx.needs_locks() {
            let lock = query("SELECT 1 FROM function_code WHERE hash = $1").for_update();
            lock.bind(row.try_get::<&[u8]>("code_hash")?).fetch_optional(&mut *tx).await?;
        }
        query(
            "DELETE FROM function_code WHERE hash = $1 \
             AND NOT EXISTS (SELECT 1 FROM functions WHERE code_hash = $1)",
        )
        .bind(row.try_get::<&[u8]>("code_hash")?)
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// The parts of a function that permissions depend on: all but its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionAccess {
    pub owner: IdentityId,
    pub public: bool,
    pub group: Option<GroupId>,
}

fn group(row: &Row) -> Result<Option<GroupId>, StoreError> {
    match row.try_get::<Option<&[u8]>>("group_id")? {
        None => Ok(None),
        Some(_) => Ok(Some(GroupId::from_uuid(id(row, "group_id")?))),
    }
}

impl Store {
    /// The same for those of `functions` that exist.
    pub async fn function_access(
        &self,
        functions: impl ExactSizeIterator<Item = FunctionId>,
    ) -> Result<HashMap<FunctionId, FunctionAccess>, StoreError> {
        let functions: Vec<_> = functions.collect();
        let mut found = HashMap::with_capacity(functions.len());
        for functions in functions.chunks(ROWS) {
            let mut select =
                StatementBuilder::new("SELECT id, owner_id, public, group_id FROM functions WHERE id");
            select.push_in(functions.iter().map(|function| key(function.as_uuid())));
            for row in select.build().fetch_all(&self.readers).await? {
                let access = FunctionAccess {
                    owner: IdentityId::from_uuid(id(&row, "owner_id")?),
                    public: row.try_get("public")?,
                    group: group(&row)?,
                };
                found.insert(FunctionId::from_uuid(id(&row, "id")?), access);
            }
        }
        Ok(found)
    }

    pub async fn function(&self, function: FunctionId) -> Result<Option<Function>, StoreError> {
        let row = query(
            "SELECT owner_id, name, code, description, public, group_id, metadata_json, python, created_us \
             FROM functions JOIN function_code ON hash = code_hash WHERE id = $1",
        )
        .bind(key(function.as_uuid()))
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Function {
            id: function,
            owner: IdentityId::from_uuid(id(&row, "owner_id")?),
            name: row.try_get("name")?,
            code: row.try_get("code")?,
            description: row.try_get("description")?,
            public: row.try_get("public")?,
            group: group(&row)?,
            metadata: json(row.try_get("metadata_json")?, "metadata_json")?,
            python: row.try_get("python")?,
            created: time(&row, "created_us")?,
        }))
    }
}
