//! Who may ask over the network, and for what. A token is known by its hash alone.

use aws_lc_rs::digest::{SHA256, digest};
use rusqlite::{OptionalExtension, Row};

use crate::hexadecimal;
use crate::model::{Id, Scope, Token};
use crate::random;
use crate::store::columns::parsed;
use crate::store::handle::AskError;
use crate::store::{Store, new_id};

impl Store {
    /// Makes a token. The text is known to whoever asked, and to nobody after that.
    pub async fn make_token(
        &self,
        description: String,
        scope: Scope,
        now: u64,
    ) -> Result<(Token, String), AskError> {
        let text = format!("dynomesh-{}", hexadecimal::of(&random::secret::<32>()));
        let token = Token { id: new_id(), description, scope, created_at: now };
        let (row, hash) = (token.clone(), hash_of(&text));
        self.ask(move |connection| {
            connection.execute(
                "INSERT INTO tokens (id, description, scope, hash, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                (row.id.to_string(), row.description, row.scope.as_str(), hash, row.created_at),
            )
        })
        .await?;
        Ok((token, text))
    }

    /// What the bearer of this text may do; `None`: it is no token.
    pub async fn scope_of(&self, text: &str) -> Result<Option<Scope>, AskError> {
        let hash = hash_of(text);
        self.ask(move |connection| {
            let scope = |row: &Row<'_>| parsed(row, 0, Scope::parse);
            connection
                .query_row("SELECT scope FROM tokens WHERE hash = ?1", [hash], scope)
                .optional()
        })
        .await
    }

    /// Every token, the oldest first.
    pub async fn tokens(&self) -> Result<Vec<Token>, AskError> {
        self.ask(|connection| {
            let mut rows = connection.prepare(
                "SELECT id, description, scope, created_at FROM tokens ORDER BY created_at, id",
            )?;
            rows.query_map((), token)?.collect()
        })
        .await
    }

    /// Takes a token back; `false`: there is none of this id.
    pub async fn revoke_token(&self, id: Id) -> Result<bool, AskError> {
        self.ask(move |connection| {
            Ok(connection.execute("DELETE FROM tokens WHERE id = ?1", [id.to_string()])? > 0)
        })
        .await
    }
}

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: parsed(row, 0, Id::parse)?,
        description: row.get(1)?,
        scope: parsed(row, 2, Scope::parse)?,
        created_at: row.get(3)?,
    })
}

/// A token has 256 random bits: there is nothing to guess, so that a plain hash is enough.
fn hash_of(text: &str) -> String {
    hexadecimal::of(digest(&SHA256, text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_good_until_it_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (token, text) = store.make_token("laptop".into(), Scope::Operate, 7).await.unwrap();
        assert_eq!(store.scope_of(&text).await.unwrap(), Some(Scope::Operate));
        assert_eq!(store.scope_of(&text[..text.len() - 1]).await.unwrap(), None);
        assert_eq!(store.tokens().await.unwrap(), std::slice::from_ref(&token));
        let written = std::fs::read(dir.path().join("dynomesh.db-wal")).unwrap();
        let secret = text.strip_prefix("dynomesh-").unwrap().as_bytes();
        assert!(!written.windows(secret.len()).any(|it| it == secret), "it is in the database");
        assert!(store.revoke_token(token.id).await.unwrap());
        assert!(!store.revoke_token(token.id).await.unwrap());
        assert_eq!(store.scope_of(&text).await.unwrap(), None);
    }
}
