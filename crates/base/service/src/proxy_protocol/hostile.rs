//! A hostile proxy, for tests and for fuzzing: whatever it sends is a header or is refused.

use std::{sync::LazyLock, time::Duration};

use tokio::runtime::{Builder, Runtime};

use super::*;

/// Time that a header has. All of it is there at once, so this is a watchdog.
const WATCHDOG: Duration = Duration::from_secs(60);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
});

/// Sends bytes to a listener that expects a header. The first byte chooses the versions that it
/// accepts. Returns whether the rest began with a header.
///
/// # Panics
/// If parsing panics, if it depends on how much has arrived, or if a header is written otherwise
/// than it was read.
pub fn attack_proxy_protocol(moves: &[u8]) -> bool {
    let Some((how, bytes)) = moves.split_first() else {
        return false;
    };
    let accepted = match how % 3 {
        0 => AcceptedVersions::V1,
        1 => AcceptedVersions::V2,
        _ => AcceptedVersions::Any,
    };
    check_reading(bytes, accepted);
    let Ok(Some((header, length))) = parse(bytes, accepted) else {
        return false;
    };
    check_prefixes(&bytes[..length], accepted);
    check_writing(&header);
    true
}

/// Checks that a connection is read as its bytes are parsed, and no further.
fn check_reading(bytes: &[u8], accepted: AcceptedVersions) {
    let mut stream = bytes;
    let read = RUNTIME.block_on(read(&mut stream, accepted, WATCHDOG));
    match (parse(bytes, accepted), read) {
        (Ok(Some((expected, length))), Ok(header)) => {
            assert_eq!((header, stream), (expected, &bytes[length..]));
        }
        (Ok(None), Err(ReadError::Closed { .. })) => assert!(stream.is_empty()),
        // What has arrived may be refused for another fault than all of it.
        (Err(_), Err(ReadError::Header(_))) => {}
        (parsed, read) => panic!("parsed as {parsed:?}, and read as {read:?}"),
    }
}

/// Checks that all bytes of a header are needed, and at least as many more as is said.
fn check_prefixes(header: &[u8], accepted: AcceptedVersions) {
    for length in 0..header.len() {
        match progress(&header[..length], accepted) {
            Ok(Progress::Partial { needed }) => {
                assert!((1..=header.len() - length).contains(&needed), "{length}");
            }
            Ok(Progress::Whole(..)) => panic!("{length} bytes are a header, too"),
            Err(error) => panic!("{length} bytes are refused: {error}"),
        }
    }
}

/// Checks that a header that was read is written so that it is read again.
fn check_writing(header: &ProxyHeader) {
    let binary = encode(header, ProxyVersion::V2).expect("it was read from so many bytes");
    let again = match header.endpoints {
        Endpoints::Known { .. } => header.clone(),
        Endpoints::Local | Endpoints::Unknown => Endpoints::Local.into(),
    };
    let expected = Ok(Some((again, binary.len())));
    assert_eq!(parse(&binary, AcceptedVersions::V2), expected);

    let line = encode(header, ProxyVersion::V1).expect("no TLVs");
    let again = match header.endpoints {
        Endpoints::Local => Endpoints::Unknown,
        endpoints => endpoints,
    };
    let expected = Ok(Some((again.into(), line.len())));
    assert_eq!(parse(&line, AcceptedVersions::V1), expected);
}
