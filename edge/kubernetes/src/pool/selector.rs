//! Label selectors, with the semantics of the API server.
//!
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#resources-that-support-set-based-requirements>

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A selector that can be matched. The empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    DoesNotExist(String),
}

/// Why a selector cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// An operator that does not exist.
    #[error("{0:?} is no operator: use In, NotIn, Exists or DoesNotExist")]
    Operator(String),
    /// `In` and `NotIn` without values select nothing and everything.
    #[error("{operator} of {key:?} needs at least one value")]
    NoValues {
        /// The label.
        key: String,
        /// The operator.
        operator: String,
    },
    /// `Exists` and `DoesNotExist` do not look at values.
    #[error("{operator} of {key:?} takes no values")]
    Values {
        /// The label.
        key: String,
        /// The operator.
        operator: String,
    },
}

impl Selector {
    /// Whether something with these labels is selected: all requirements hold.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            // A label that is not there has none of the values.
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::DoesNotExist(key) => !labels.contains_key(key),
        })
    }
}

impl TryFrom<&LabelSelector> for Selector {
    type Error = SelectorError;

    fn try_from(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let labels = selector.match_labels.iter().flatten();
        let mut requirements: Vec<_> = labels
            .map(|(key, value)| Requirement::In(key.clone(), BTreeSet::from([value.clone()])))
            .collect();
        for expression in selector.match_expressions.iter().flatten() {
            let (key, operator) = (expression.key.clone(), expression.operator.clone());
            let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
            requirements.push(match (operator.as_str(), values.is_empty()) {
                ("In" | "NotIn", true) => return Err(SelectorError::NoValues { key, operator }),
                ("Exists" | "DoesNotExist", false) => return Err(SelectorError::Values { key, operator }),
                ("In", false) => Requirement::In(key, values),
                ("NotIn", false) => Requirement::NotIn(key, values),
                ("Exists", true) => Requirement::Exists(key),
                ("DoesNotExist", true) => Requirement::DoesNotExist(key),
                _ => return Err(SelectorError::Operator(operator)),
            });
        }
        Ok(Self(requirements))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn selector(value: serde_json::Value) -> Result<Selector, SelectorError> {
        Selector::try_from(&serde_json::from_value::<LabelSelector>(value).unwrap())
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn expression(operator: &str, values: &[&str]) -> serde_json::Value {
        json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]})
    }

    #[test]
    fn every_operator_means_what_it_means_to_the_api_server() {
        let cases = [
            (json!({}), [true, true, true]),
            (json!({"matchLabels": {"a": "1"}}), [false, true, false]),
            (expression("In", &["1", "3"]), [false, true, false]),
            (expression("NotIn", &["1", "3"]), [true, false, true]),
            (expression("Exists", &[]), [false, true, true]),
            (expression("DoesNotExist", &[]), [true, false, false]),
        ];
        for (value, expected) in cases {
            let selector = selector(value.clone()).unwrap();
            let sets = [labels(&[("b", "1")]), labels(&[("a", "1")]), labels(&[("a", "2")])];
            assert_eq!(sets.map(|set| selector.matches(&set)), expected, "{value}");
        }
    }

    #[test]
    fn what_the_api_server_would_refuse_is_refused() {
        assert_eq!(selector(expression("Is", &["1"])), Err(SelectorError::Operator("Is".to_owned())));
        for (operator, values) in
            [("In", [].as_slice()), ("NotIn", &[]), ("Exists", &["1"]), ("DoesNotExist", &["1"])]
        {
            assert!(selector(expression(operator, values)).is_err(), "{operator}");
        }
    }

    proptest! {
        #[test]
        fn an_operator_and_its_opposite_never_agree(value in "[ab]", has in prop::option::of("[ab]")) {
            let set = has.map(|has| labels(&[("a", &has)])).unwrap_or_default();
            let yes = |operator: &str, values: &[&str]| selector(expression(operator, values)).unwrap().matches(&set);
            prop_assert_ne!(yes("In", &[&value]), yes("NotIn", &[&value]));
            prop_assert_ne!(yes("Exists", &[]), yes("DoesNotExist", &[]));
        }
    }
}
