//! Structs are read from objects alone, at every depth of a body.
//!
//! What serde derives takes a list for a struct, too, field by field in the order in which they are declared, and an
//! object for a name: `["m", [1]]` would be a request that nobody meant. A format may say no to both, so this one does,
//! for every type that is read through it. What a type keeps for later (`RawValue`) is read elsewhere, and no type here
//! is untagged or flattened: those would be read from serde's own copy of the values.

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use std::fmt;

/// Reads what the deserializer within reads, but no struct from a list, and of enums the name of a variant alone.
pub struct ObjectsOnly<D>(pub D);

/// Nothing is nested in what these read.
macro_rules! read_as_it_is {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(visitor)
        })*
    };
}

macro_rules! read_with_what_is_nested {
    ($($method:ident($($argument:ident: $kind:ty),*))*) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($argument,)* ObjectsOnly(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ObjectsOnly<D> {
    type Error = D::Error;

    read_as_it_is! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_identifier
        deserialize_ignored_any
    }

    read_with_what_is_nested! {
        deserialize_any()
        deserialize_option()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_seq()
        deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_map()
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_str(VariantName(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! visit_as_it_is {
    ($($method:ident($kind:ty))*) => {
        $(fn $method<E: de::Error>(self, value: $kind) -> Result<V::Value, E> {
            self.0.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for ObjectsOnly<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    visit_as_it_is! {
        visit_bool(bool) visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64) visit_i128(i128) visit_u8(u8)
        visit_u16(u16) visit_u32(u32) visit_u64(u64) visit_u128(u128) visit_f32(f32) visit_f64(f64) visit_char(char)
        visit_str(&str) visit_borrowed_str(&'de str) visit_string(String) visit_bytes(&[u8])
        visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(ObjectsOnly(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(ObjectsOnly(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(ObjectsOnly(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(ObjectsOnly(map))
    }

    // Of names alone, see `deserialize_enum`.
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(data)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for ObjectsOnly<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(ObjectsOnly(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for ObjectsOnly<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(ObjectsOnly(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for ObjectsOnly<T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        self.0.deserialize(ObjectsOnly(deserializer))
    }
}

/// Gives an enum's own visitor the name that was read.
struct VariantName<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for VariantName<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<V::Value, E> {
        let name: StrDeserializer<'_, E> = name.into_deserializer();
        self.0.visit_enum(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::value::RawValue;
    use std::collections::BTreeMap;

    #[derive(Deserialize, PartialEq, Debug)]
    #[serde(expecting = "an object")]
    struct Outer {
        inner: Option<Inner>,
        list: Option<Vec<Inner>>,
        table: Option<BTreeMap<String, Inner>>,
        pair: Option<(u32, Inner)>,
        wrapped: Option<Wrapped>,
    }

    #[derive(Deserialize, PartialEq, Debug)]
    #[serde(expecting = "an object")]
    struct Inner {
        number: u32,
        kind: Option<Kind>,
    }

    #[derive(Deserialize, PartialEq, Debug)]
    struct Wrapped(Inner);

    #[derive(Deserialize, PartialEq, Debug)]
    #[serde(rename_all = "lowercase", expecting = "plain or fancy")]
    enum Kind {
        Plain,
        Fancy,
    }

    fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, String> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        T::deserialize(ObjectsOnly(&mut deserializer)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_is_no_struct_at_any_depth() {
        for text in [
            r#"[null, null, null, null, null]"#,
            r#"{"inner": [1, "plain"]}"#,
            r#"{"list": [{"number": 1}, [1, "plain"]]}"#,
            r#"{"table": {"a": [1, "plain"]}}"#,
            r#"{"pair": [1, [1, "plain"]]}"#,
            r#"{"wrapped": [1, "plain"]}"#,
        ] {
            assert!(serde_json::from_str::<Outer>(text).is_ok(), "{text}");
            let error = read::<Outer>(text).unwrap_err();
            let words = "invalid type: sequence, expected an object at line 1 column ";
            assert!(error.starts_with(words), "{text}: {error}");
        }
    }

    #[test]
    fn an_object_is_no_name() {
        let text = r#"{"number": 1, "kind": {"plain": null}}"#;
        assert!(serde_json::from_str::<Inner>(text).is_ok());
        let error = read::<Inner>(text).unwrap_err();
        assert!(error.contains("expected plain or fancy"), "{error}");
    }

    #[test]
    fn everything_else_is_read_as_ever() {
        let text = r#"{
            "inner": {"number": 1, "kind": "fancy", "unknown": [{}]},
            "list": [{"number": 2, "kind": null}],
            "table": {"a": {"number": 3}},
            "pair": [4, {"number": 5, "kind": "pl\u0061in"}],
            "wrapped": {"number": 6}
        }"#;
        assert_eq!(read::<Outer>(text), Ok(serde_json::from_str(text).unwrap()));
        let raw: Box<RawValue> = read("[1, {\"a\":  2}]").unwrap();
        assert_eq!(raw.get(), "[1, {\"a\":  2}]");
        let value: serde_json::Value = read(r#"{"a": [1, -2, 0.5, true, null, "b"]}"#).unwrap();
        assert_eq!(value, serde_json::json!({"a": [1, -2, 0.5, true, null, "b"]}));
    }
}
