//! What an address says: parameters of its path and of its query. What is wrong with one is told as a `Problem`.

use std::sync::Arc;

use axum::extract::{self, FromRequestParts};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::App;
use super::problem::ApiError;
use crate::epistula::decoded;

/// Parameters of the query.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &Arc<App>) -> Result<Self, ApiError> {
        let found = extract::Query::<T>::try_from_uri(&parts.uri);
        let query = parts.uri.query().unwrap_or_default();
        found
            .map(|extract::Query(found)| Self(found))
            .map_err(|error| ApiError::BadRequest(query_words(query, &error.body_text())))
    }
}

/// Parts of the path.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let found = extract::Path::<T>::from_request_parts(parts, app).await;
        found.map(|extract::Path(found)| Self(found)).map_err(|error| ApiError::BadRequest(error.body_text()))
    }
}

/// The parameter, its value, and what is allowed.
fn query_words(query: &str, said: &str) -> String {
    let said = said.rsplit_once("query string: ").map_or(said, |(_, rest)| rest);
    let Some((name, reason)) = said.split_once(": ") else { return format!("the query: {said}") };
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = pairs.find(|(found, _)| decoded(found) == name).map(|(_, value)| decoded(value));
    let Some(value) = value.filter(|_| !reason.starts_with("unknown field")) else {
        return format!("the query: {reason}");
    };
    let allowed = match reason {
        // First: it quotes the value, which may be any word of those below.
        _ if reason.starts_with("unknown variant") => reason,
        _ if reason.contains("invalid digit") || reason.contains("too large") || reason.contains("empty") => {
            "a whole number from 0 that is not too large is expected"
        }
        _ if reason.contains("`true` or `false`") => "true or false is expected",
        _ => reason,
    };
    format!("the parameter {name}={value:.80}: {allowed}")
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;
    use serde::Deserialize;

    use super::query_words;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Status {
        Active,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only parsed")]
    struct Asked {
        state: Option<Status>,
        count: Option<u32>,
    }

    fn words(query: &str) -> String {
        let uri = format!("/v1/x?{query}").parse().unwrap();
        query_words(query, &Query::<Asked>::try_from_uri(&uri).unwrap_err().body_text())
    }

    #[test]
    fn whatever_the_value_is_the_words_are_those_of_its_parameter() {
        for value in ["empty", "invalid+digit", "too+large", "%60true%60+or+%60false%60"] {
            let said = words(&format!("state={value}"));
            assert!(said.contains("unknown variant") && said.ends_with("expected `active`"), "{said}");
        }
        for value in ["", "-1", "99999999999"] {
            let said = words(&format!("count={value}"));
            assert!(said.ends_with("a whole number from 0 that is not too large is expected"), "{said}");
        }
    }
}
