//! The options of the portmap plugin, so that `"type": "portmap"` can become `"type": "portolan"` and nothing else.
//!
//! | key | here |
//! | --- | --- |
//! | `backend` | accepted and ignored: it says how, and we have one way |
//! | `snat` | accepted and ignored: an instance always reaches itself by its published port, and nobody else's source is changed |
//! | `markMasqBit`, `externalSetMarkChain` | accepted and ignored: we mark no packets |
//! | `masqAll: true` | refused: clients would expect to be masqueraded, and are not |
//! | `conditionsV4`, `conditionsV6` | refused: the port would answer to more than was asked for |
//!
//! Combinations that portmap refuses are refused too, so that a mistake is not hidden by the change.

use serde::Deserialize;
use serde_json::Value;

use crate::{CniError, code};

/// The options as they come; of any type, because DEL must not fail on them.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Options {
    backend: Option<Value>,
    snat: Option<Value>,
    #[serde(rename = "masqAll")]
    masq_all: Option<Value>,
    #[serde(rename = "conditionsV4")]
    conditions_v4: Option<Value>,
    #[serde(rename = "conditionsV6")]
    conditions_v6: Option<Value>,
    #[serde(rename = "markMasqBit")]
    mark_masq_bit: Option<Value>,
    #[serde(rename = "externalSetMarkChain")]
    external_set_mark_chain: Option<Value>,
}

impl Options {
    /// What ADD and CHECK have to say about them.
    ///
    /// # Errors
    /// Code 2 for what would change the meaning, 7 for what portmap refuses.
    pub(crate) fn check(&self) -> Result<(), CniError> {
        let invalid = |text: &str| Err(CniError::new(code::CONFIG, text));
        for (key, value) in [("snat", &self.snat), ("masqAll", &self.masq_all)] {
            if value.as_ref().is_some_and(|value| !value.is_boolean()) {
                return invalid(&format!("{key} is neither true nor false"));
            }
        }
        if self.masq_all == Some(Value::Bool(true)) {
            return Err(unsupported("masqAll", "true", "the instance sees who connects; take the key out"));
        }
        for (key, value) in [("conditionsV4", &self.conditions_v4), ("conditionsV6", &self.conditions_v6)] {
            if let Some(value) = value.as_ref().filter(|value| has_conditions(value)) {
                return Err(unsupported(key, &value.to_string(), "limit a port by hostIP, or by a firewall"));
            }
        }
        match &self.mark_masq_bit {
            Some(_) if self.external_set_mark_chain.is_some() => {
                return invalid("markMasqBit and externalSetMarkChain cannot both be set");
            }
            Some(bit) if bit.as_u64().is_none_or(|bit| bit > 31) => {
                return invalid(&format!("markMasqBit {bit} is no bit: use 0 to 31"));
            }
            _ => {}
        }
        match self.backend.as_ref().map(|backend| backend.as_str().unwrap_or_default()) {
            None | Some("iptables") => Ok(()),
            Some("nftables") if self.external_set_mark_chain.is_some() => {
                invalid("externalSetMarkChain is an option of the iptables backend, and backend is nftables")
            }
            Some("nftables") => Ok(()),
            Some(_) => invalid("backend is neither iptables nor nftables"),
        }
    }
}

/// portmap takes an empty list, or one that begins with an empty word, as no condition.
fn has_conditions(value: &Value) -> bool {
    match value {
        Value::Array(words) => words.first().is_some_and(|word| word.as_str() != Some("")),
        _ => true,
    }
}

/// "The error message must contain the key and value of the unsupported field."
fn unsupported(key: &str, value: &str, hint: &str) -> CniError {
    CniError::new(code::UNSUPPORTED_FIELD, format!("{key}: {value} is not supported: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<(), CniError> {
        serde_json::from_str::<Options>(json).unwrap().check()
    }

    #[test]
    fn options_that_change_nothing_are_accepted() {
        for json in [
            "{}",
            r#"{"backend": "iptables", "snat": false, "masqAll": false, "markMasqBit": 13}"#,
            r#"{"backend": "nftables", "snat": true, "conditionsV4": [], "conditionsV6": [""]}"#,
            r#"{"externalSetMarkChain": "KUBE-MARK-MASQ"}"#,
            r#"{"backend": null, "snat": null, "conditionsV4": null}"#,
        ] {
            assert_eq!(check(json), Ok(()), "{json}");
        }
    }

    #[test]
    fn options_that_change_the_meaning_are_refused_with_key_and_value() {
        for (json, said) in [
            (r#"{"masqAll": true}"#, "masqAll: true"),
            (r#"{"conditionsV4": ["-s", "1.2.3.4"]}"#, r#"conditionsV4: ["-s","1.2.3.4"]"#),
            (r#"{"backend": "nftables", "conditionsV6": ["ip6", "saddr", "12::34"]}"#, "conditionsV6: "),
        ] {
            let error = check(json).unwrap_err();
            assert_eq!(error.code, code::UNSUPPORTED_FIELD, "{json}");
            assert!(error.message.contains(said), "{error}");
        }
    }

    #[test]
    fn what_portmap_refuses_is_refused() {
        for json in [
            r#"{"markMasqBit": 32}"#,
            r#"{"markMasqBit": -1}"#,
            r#"{"markMasqBit": 13, "externalSetMarkChain": "X"}"#,
            r#"{"backend": "nftables", "externalSetMarkChain": "X"}"#,
            r#"{"backend": "ipvs"}"#,
            r#"{"snat": "yes"}"#,
        ] {
            assert_eq!(check(json).unwrap_err().code, code::CONFIG, "{json}");
        }
    }
}
