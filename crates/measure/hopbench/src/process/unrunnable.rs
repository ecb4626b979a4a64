//! Why a program that is there can't be run.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

/// Maximum length of a script's first line, in bytes: the kernel reads no more.
const FIRST_LINE_BYTES_MAX: u64 = 256;

/// Returns the error of a start with what is missing, if it isn't the program itself: for its
/// interpreter or its loader, the kernel has the same error as for the program.
pub(super) fn explained(program: &OsStr, error: io::Error) -> io::Error {
    let file = Path::new(program);
    if error.kind() != ErrorKind::NotFound || file.components().count() < 2 || !file.is_file() {
        return error;
    }
    let message = match first_line(file) {
        Some(line) if line.starts_with("#!") => {
            format!("the interpreter in its first line ('{line}') is missing")
        }
        _ => "the loader that it needs is missing; is it for another system?".to_owned(),
    };
    io::Error::new(error.kind(), message)
}

fn first_line(file: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(file).ok()?;
    file.take(FIRST_LINE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_missing_interpreter_is_named() {
        let place = tempfile::TempDir::new().expect("a directory");
        let explain = |name: &str, text: &str, kind| {
            let file = place.path().join(name);
            fs::write(&file, text).expect("ours");
            explained(file.as_os_str(), io::Error::from(kind)).to_string()
        };
        let script = "#!/no/such/python3 -u\nprint(1)\n";
        let told = explain("a", script, ErrorKind::NotFound);
        let expected = "the interpreter in its first line ('#!/no/such/python3 -u') is missing";
        assert_eq!(told, expected);
        let told = explain("b", "\x7fELF", ErrorKind::NotFound);
        assert!(told.contains("the loader"), "{told}");
        let other = ErrorKind::PermissionDenied;
        assert_eq!(
            explain("c", script, other),
            io::Error::from(other).to_string()
        );
        let absent = place.path().join("absent");
        let told = explained(absent.as_os_str(), io::Error::from(ErrorKind::NotFound));
        assert_eq!(
            told.to_string(),
            io::Error::from(ErrorKind::NotFound).to_string()
        );
    }
}
