//! Registered functions. Their code is stored once, however often it is called.

use jiff::Timestamp;
use sqlx::Row;
use wire::rest::function::Meta;
use wire::{FunctionId, IdentityId};

use super::row::{id, json, key, text, time};
use super::{Command, Store, StoreError, Tx};

#[derive(Clone, Debug)]
pub struct Function {
    pub id: FunctionId,
    pub owner: IdentityId,
    pub name: String,
    /// The packed buffer that starts every task of this function.
    pub code: String,
    pub description: Option<String>,
    pub public: bool,
    pub metadata: Meta,
    /// The interpreter that registered it, such as `3.11.7`.
    pub python: Option<String>,
    pub created: Timestamp,
}

impl Function {
    pub fn access(&self) -> FunctionAccess {
        FunctionAccess { owner: self.owner, public: self.public }
    }
}

#[derive(Debug)]
pub struct AddFunction(pub Function);

impl Command for AddFunction {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let function = self.0;
        sqlx::query(
            "INSERT INTO functions \
             (id, owner_id, name, code, description, public, metadata_json, python, created_us) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(key(function.id.as_uuid()))
        .bind(key(function.owner.as_uuid()))
        .bind(function.name)
        .bind(function.code)
        .bind(function.description)
        .bind(function.public)
        .bind(text(&function.metadata)?)
        .bind(function.python)
        .bind(function.created.as_microsecond())
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// What the rules need to know of a function: all but its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionAccess {
    pub owner: IdentityId,
    pub public: bool,
}

impl Store {
    pub async fn function_access(&self, function: FunctionId) -> Result<Option<FunctionAccess>, StoreError> {
        let row = sqlx::query("SELECT owner_id, public FROM functions WHERE id = $1")
            .bind(key(function.as_uuid()))
            .fetch_optional(&self.readers)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let owner = IdentityId::from_uuid(id(&row, "owner_id")?);
        Ok(Some(FunctionAccess { owner, public: row.try_get("public")? }))
    }

    pub async fn function(&self, function: FunctionId) -> Result<Option<Function>, StoreError> {
        let row = sqlx::query(
            "SELECT owner_id, name, code, description, public, metadata_json, python, created_us \
             FROM functions WHERE id = $1",
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
            metadata: json(row.try_get("metadata_json")?, "metadata_json")?,
            python: row.try_get("python")?,
            created: time(&row, "created_us")?,
        }))
    }
}
