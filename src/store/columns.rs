//! Columns, read as what they stand for.

use rusqlite::Row;

use crate::store::sealed::SealKey;

/// A column of text that has to be something.
pub(in crate::store) fn parsed<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    parse(&text).ok_or_else(|| strange(column, format!("{text:?} is none")))
}

/// A sealed column.
pub(in crate::store) fn opened(
    key: &SealKey,
    row: &Row<'_>,
    column: usize,
    place: &str,
) -> rusqlite::Result<String> {
    let sealed: Vec<u8> = row.get(column)?;
    key.open(place, &sealed).map_err(|error| strange(column, error.to_string()))
}

/// What is in a column is not what it has to be.
pub(in crate::store) fn strange(column: usize, message: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, message.into())
}
