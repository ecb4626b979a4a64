//! JSON Schemas of the files that users write, made of the types that parse them.

use hopbench_analysis::gate::PolicyFile;
use schemars::{JsonSchema, Schema, generate::SchemaSettings};

use super::{path, probe, scenario};

/// A kind of file that users write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FileKind {
    Path,
    Scenario,
    Gate,
    Probe,
}

impl FileKind {
    /// Returns the schema of this kind of file.
    pub(crate) fn schema(self) -> Schema {
        match self {
            Self::Path => of::<path::Wire>("path", "A path of hopbench"),
            Self::Scenario => of::<scenario::Wire>("scenario", "A scenario of hopbench"),
            Self::Gate => of::<PolicyFile>("gate", "A gate of hopbench"),
            Self::Probe => of::<probe::Wire>("probe", "A probe of hopbench"),
        }
    }
}

fn of<T: JsonSchema>(name: &str, title: &str) -> Schema {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("$id".to_owned(), format!("urn:hopbench:{name}").into());
    schema.insert("title".to_owned(), title.into());
    schema
}
