//! Checks that requests can come through all processes of a path, as far as its file says.

use std::collections::BTreeSet;

use super::{
    front::Front,
    template::{Place, Template},
};

/// A process, and the places by which others can reach it or be reached by it.
struct Node<'p> {
    name: &'p str,
    places: BTreeSet<&'p Place>,
}

/// The name of a process and the texts that it gets.
type Process<'p> = (&'p str, Vec<&'p Template>);

/// The name and the content of a file that a path writes.
type File<'p> = (&'p str, &'p Template);

/// Checks that clients can't get past a hop at the front, and that no process with a port is
/// reached by nobody. A hop that isn't on the way would be measured as one that costs nothing, and
/// so would one that answers instead of the origin.
pub(super) fn check<'p>(
    front: &Front,
    processes: impl Iterator<Item = Process<'p>>,
    files: &[File<'p>],
) -> Result<(), String> {
    let nodes: Vec<Node<'_>> = processes.map(|it| Node::of(it, files)).collect();
    let readers = |file: &str| {
        let reads = |node: &&Node<'_>| node.places.iter().any(|it| file_of(it) == Some(file));
        nodes.iter().filter(reads).count()
    };
    if files.iter().any(|(name, _)| readers(name) == 0) {
        // A program may find its files by itself, and who reads them isn't known.
        return Ok(());
    }
    let own: BTreeSet<&Place> = front.address.places().filter(|it| is_address(it)).collect();
    // Of a file that several processes read, it isn't known which of them listens there.
    let names_front = |text: &Template| text.places().any(|place| own.contains(place));
    let mut shared = files.iter().filter(|(name, _)| readers(name) > 1);
    if !shared.any(|(_, content)| names_front(content)) {
        check_front(front, &own, &nodes)?;
    }
    check_reached(&own, &nodes)
}

/// Fails if two processes name the front and share no other address with anybody, and one of them
/// has a port that nobody uses: that is where it listens. Otherwise, one that names the front may
/// be a client of the hop, such as one that checks its health.
fn check_front(front: &Front, own: &BTreeSet<&Place>, nodes: &[Node<'_>]) -> Result<(), String> {
    let names = |place: &Place| nodes.iter().filter(|it| it.places.contains(place)).count();
    let is_apart = |node: &&Node<'_>| {
        let others = node.places.difference(own);
        let mut others = others.filter(|place| is_address(place));
        !node.places.is_disjoint(own) && others.all(|place| names(place) == 1)
    };
    let apart: Vec<&Node<'_>> = nodes.iter().filter(is_apart).collect();
    for node in &apart {
        let mut ports = node.places.iter().filter(|place| is_port(place));
        let port = ports.find(|port| names(port) == 1);
        let other = apart.iter().find(|other| other.name != node.name);
        if let (Some(port), Some(other)) = (port, other) {
            return Err(format!(
                "'front': '{front}': processes '{}' and '{}' both name it, so clients would get \
                 past one of them; did you mean '{port}', which only '{}' names?",
                other.name, node.name, node.name
            ));
        }
    }
    Ok(())
}

/// Fails if a process has a port, and neither clients nor another process can have to do with it.
/// A socket may also be named by its file.
fn check_reached(own: &BTreeSet<&Place>, nodes: &[Node<'_>]) -> Result<(), String> {
    for node in nodes {
        let Some(port) = node.places.iter().find(|place| is_port(place)) else {
            continue;
        };
        let mut others = nodes.iter().filter(|other| other.name != node.name);
        let is_reached = !node.places.is_disjoint(own)
            || others.any(|other| !node.places.is_disjoint(&other.places));
        if !is_reached {
            return Err(format!(
                "process '{}': no other process names '{port}', so nothing reaches it; write that \
                 in the hop's 'command' or in a [[file]], or leave the process out",
                node.name
            ));
        }
    }
    Ok(())
}

impl<'p> Node<'p> {
    fn of((name, mut texts): Process<'p>, files: &[File<'p>]) -> Self {
        let mut places = BTreeSet::new();
        while let Some(text) = texts.pop() {
            for place in text.places().filter(|place| is_shared(place)) {
                if places.insert(place)
                    && let Some(name) = file_of(place)
                {
                    let file = files.iter().find(|(file, _)| *file == name);
                    texts.extend(file.map(|(_, content)| content));
                }
            }
        }
        Self { name, places }
    }
}

/// Returns the name of the file at a place.
fn file_of(place: &Place) -> Option<&str> {
    match place {
        Place::File(name) => Some(name),
        _ => None,
    }
}

fn is_port(place: &Place) -> bool {
    matches!(place, Place::Port(_))
}

fn is_address(place: &Place) -> bool {
    matches!(place, Place::Port(_) | Place::Socket(_))
}

/// Returns whether two processes with the same place may have to do with each other.
fn is_shared(place: &Place) -> bool {
    is_address(place) || matches!(place, Place::Dir | Place::File(_))
}

#[cfg(test)]
mod tests {
    use crate::catalog::PathDefinition;

    /// Reads a path of two processes, each with the arguments of its command, and a file.
    fn read(front: &str, [origin, hop]: [&str; 2], content: &str) -> Result<(), String> {
        let text = format!(
            "summary = ''\nfront = '{front}'\n\
             [[process]]\nname = 'a'\nrole = 'a'\ncommand = ['a', '{origin}']\nversion = ['a']\n\
             [[process]]\nname = 'b'\nrole = 'b'\ncommand = ['b', '{hop}']\nversion = ['b']\n\
             [[file]]\nname = 'c'\ncontent = '{content}'\n"
        );
        PathDefinition::parse("test", &text).map(drop)
    }

    #[test]
    fn a_hop_at_which_no_client_arrives_is_refused() {
        let front = "1.2.3.4:{{port:front}}";
        let (origin, hop) = (
            "{{port:origin}}",
            "{{port:front}} {{port:origin}} {{file:c}}",
        );
        assert_eq!(read(front, [origin, hop], ""), Ok(()));
        // What a file says counts for the process that reads it.
        assert_eq!(read(front, [origin, "{{file:c}}"], hop), Ok(()));
        let message = read("1.2.3.4:{{port:origin}}", [origin, hop], "").expect_err("past it");
        let expected = "'front': '1.2.3.4:{{port:origin}}': processes 'a' and 'b' both name it, so \
                        clients would get past one of them; did you mean '{{port:front}}', which \
                        only 'b' names?";
        assert_eq!(message, expected);
        // A helper may ask the front, too.
        assert_eq!(
            read(front, ["{{port:front}}", "{{port:front}} {{file:c}}"], ""),
            Ok(())
        );
        // So may one with a port of its own, while another process is the origin.
        let checker = "[[process]]\nname = 'd'\nrole = 'd'\nversion = ['d']\n\
                       command = ['d', '{{port:metrics}} {{port:front}}']\n";
        let hop = format!("{hop} {{{{port:of-hop}}}}");
        let content = format!("'\n{checker}#");
        assert_eq!(read(front, [origin, &hop], &content), Ok(()));
        // It isn't known which of two processes listens at what a file of both says.
        assert_eq!(
            read(
                front,
                ["{{file:c}} {{port:x}}", "{{file:c}}"],
                "{{port:front}}"
            ),
            Ok(())
        );
        // It isn't known who reads a file that nobody names.
        assert_eq!(
            read("1.2.3.4:{{port:origin}}", [origin, origin], ""),
            Ok(())
        );
    }

    #[test]
    fn a_process_that_nothing_reaches_is_refused() {
        let front = "1.2.3.4:{{port:front}}";
        let hop = "{{port:front}} {{file:c}}";
        let message = read(front, ["{{port:origin}}", hop], "").expect_err("unreached");
        let expected = "process 'a': no other process names '{{port:origin}}'";
        assert!(message.starts_with(expected), "{message}");
        // A helper without an address may be reached in ways that the file doesn't show, and so may
        // one in the directory that another uses.
        assert_eq!(read(front, ["80", hop], ""), Ok(()));
        let helper = "{{socket:x}} {{dir}}";
        assert_eq!(read(front, [helper, hop], "{{dir}}/x.sock"), Ok(()));
    }
}
