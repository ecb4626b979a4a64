//! JSON Schemas of types that are parsed from something else.

/// Gives types the schema of what they are parsed from: `Parsed => Written;`. Derived, it would be
/// that of their fields, which no file has.
#[macro_export]
macro_rules! has_schema_of {
    ($($parsed:ty => $written:ty;)+) => {$(
        impl schemars::JsonSchema for $parsed {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                <$written as schemars::JsonSchema>::schema_name()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                <$written as schemars::JsonSchema>::json_schema(generator)
            }

            fn inline_schema() -> bool {
                true
            }
        }
    )+};
}
