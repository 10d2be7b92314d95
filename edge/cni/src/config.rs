//! The network configuration on standard input, passed over once.
//!
//! With a block of 1,000 ports it is 60 KB, nearly all of it `runtimeConfig.portMappings`. So `runtimeConfig` becomes what
//! the command needs of it while the text is passed over, and every other value stays text until somebody wants it.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapDeserializer},
};
use serde_json::value::RawValue;

use crate::{CniError, code, mappings::Mappings, text::Text};

const RUNTIME: &str = "runtimeConfig";

/// The keys of the configuration, but for `runtimeConfig`.
#[derive(Debug)]
pub(crate) struct Config<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// `runtimeConfig`, for the commands that need it.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Runtime<'a> {
    #[serde(rename = "portMappings", borrow)]
    pub(crate) mappings: Option<Mappings<'a>>,
    /// Told, and null when the Pod has none; or not told at all.
    #[serde(rename = "io.kubernetes.cri.pod-annotations", default, deserialize_with = "told")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl<'a> Config<'a> {
    /// Reads it, and `runtimeConfig` as an `R`, when it has one that is not null.
    ///
    /// # Errors
    /// Code 6 when it is no JSON object, or `runtimeConfig` is no `R`.
    pub(crate) fn read<R: Deserialize<'a>>(stdin: &'a [u8]) -> Result<(Self, Option<R>), CniError> {
        // Whole, not string by string as `from_slice` would.
        let text = str::from_utf8(stdin).map_err(|error| wrong(&error))?;
        let Both(config, runtime) = serde_json::from_str(text).map_err(|error| wrong(&error))?;
        Ok((config, runtime))
    }

    /// Those of the keys that `T` has.
    ///
    /// # Errors
    /// Code 6 when one of them is of another type.
    pub(crate) fn part<T: Deserialize<'a>>(&self) -> Result<T, CniError> {
        let values = self.0.iter().map(|(key, value)| (key.as_ref(), *value));
        T::deserialize(MapDeserializer::new(values)).map_err(|error| wrong(&error))
    }
}

fn wrong(error: &dyn fmt::Display) -> CniError {
    CniError::new(code::DECODE, "cannot read the network configuration").with_details(error.to_string())
}

fn told<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    Option::deserialize(from).map(|annotations| Some(annotations.unwrap_or_default()))
}

struct Both<'a, R>(Config<'a>, Option<R>);

impl<'de, R: Deserialize<'de>> Deserialize<'de> for Both<'de, R> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Keys(PhantomData))
    }
}

struct Keys<R>(PhantomData<R>);

impl<'de, R: Deserialize<'de>> Visitor<'de> for Keys<R> {
    type Value = Both<'de, R>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a network configuration")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut values, mut runtime) = (Vec::new(), None);
        while let Some(Text(key)) = map.next_key()? {
            if key != RUNTIME {
                values.push((key, map.next_value()?));
            } else if runtime.replace(map.next_value()?).is_some() {
                return Err(A::Error::duplicate_field(RUNTIME));
            }
        }
        Ok(Both(Config(values), runtime.flatten()))
    }
}
