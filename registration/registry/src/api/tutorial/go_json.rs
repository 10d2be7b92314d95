//! Reads JSON as Go's `encoding/json` reads it into `struct { Name string; Address string; Tags []string }`.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// What the original calls a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) tags: Vec<String>,
}

impl Words {
    /// The first JSON value of a body. `null` is a backend with nothing in it.
    pub(super) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        // Go replaces bytes that are no UTF-8, where serde_json refuses them.
        let text = String::from_utf8_lossy(body);
        let mut json = serde_json::Deserializer::from_str(&text);
        // Not `from_str`, which would insist on the end of the text after the value.
        Option::<Self>::deserialize(&mut json).map(Option::unwrap_or_default)
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Object)
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Words;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with Name, Address and Tags")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Words, A::Error> {
        let mut words = Words::default();
        while let Some(key) = map.next_key::<String>()? {
            // `null` leaves a field as it is; in a list it is an empty text.
            match key.to_ascii_lowercase().as_str() {
                "name" => words.name = map.next_value::<Option<_>>()?.unwrap_or(words.name),
                "address" => words.address = map.next_value::<Option<_>>()?.unwrap_or(words.address),
                "tags" => {
                    let tags: Option<Vec<Option<String>>> = map.next_value()?;
                    words.tags =
                        tags.unwrap_or_default().into_iter().map(Option::unwrap_or_default).collect();
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(words)
    }
}
