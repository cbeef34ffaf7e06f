//! Queries over instances.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::InstanceState;
use crate::query::{QueryError, tag_key};

/// Query of `DELETE /instances/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteInstanceQuery {
    /// Ask the guest first, true by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_shutdown: Option<bool>,
}

/// Query of `GET /instances`; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListInstancesQuery {
    /// Only those in this state.
    #[param(value_type = Option<InstanceState>)]
    pub state: Option<InstanceState>,
    /// Only forks that share the memory of this template, by id. An extension
    /// of coppice.
    pub fork_of: Option<String>,
    /// Only those with these labels, as `tags[key]=value`.
    #[param(style = DeepObject, explode)]
    pub tags: BTreeMap<String, String>,
}

impl ListInstancesQuery {
    /// Reads the part of a URL after the question mark.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let mut parsed = Self::default();
        for (parameter, value) in form_urlencoded::parse(query.as_bytes()) {
            match parameter.as_ref() {
                "state" => {
                    let state = value.parse().map_err(|_| QueryError::InvalidValue {
                        parameter: parameter.to_string(),
                        value: value.to_string(),
                    })?;
                    parsed.state = Some(state);
                }
                "fork_of" => parsed.fork_of = Some(value.into_owned()),
                other => {
                    let key = tag_key(other)?;
                    parsed.tags.insert(key.to_owned(), value.into_owned());
                }
            }
        }
        Ok(parsed)
    }

    /// Writes the part of a URL after the question mark; empty without
    /// conditions.
    pub fn to_query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(state) = self.state {
            query.append_pair("state", state.as_str());
        }
        if let Some(fork_of) = &self.fork_of {
            query.append_pair("fork_of", fork_of);
        }
        for (key, value) in &self.tags {
            query.append_pair(&format!("tags[{key}]"), value);
        }
        query.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_it_reads() {
        let query = ListInstancesQuery {
            state: Some(InstanceState::Template),
            fork_of: Some("abc".to_owned()),
            tags: BTreeMap::from([
                ("app/tier".to_owned(), "a b&c".to_owned()),
                ("x".to_owned(), String::new()),
            ]),
        };
        assert_eq!(ListInstancesQuery::parse(&query.to_query()), Ok(query));
    }

    #[test]
    fn names_what_it_refuses() {
        for (text, named) in [
            ("colour=red", "colour"),
            ("state=Asleep", "Asleep"),
            ("tags[a=1", "tags[a"),
        ] {
            let refusal = ListInstancesQuery::parse(text).expect_err(text);
            assert!(refusal.to_string().contains(named), "{refusal}");
        }
    }
}
