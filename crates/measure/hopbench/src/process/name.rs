//! Names of files where text is needed.

use std::path::Path;

use anyhow::Context as _;

/// Returns a path as part of a command line or of a configuration file, which are UTF-8.
pub(crate) fn as_text(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.with_context(|| {
        let path = path.display();
        format!("'{path}': expected a name in UTF-8, for commands and files; use another directory")
    })
}
