//! Programs that change how another one runs, and then become it, such as `env` and `nice`.

/// A program whose arguments name the program that it becomes.
struct Wrapper {
    name: &'static str,
    /// Options whose value is the next word.
    with_value: &'static [&'static str],
    /// Number of words before the program that are no options.
    operands: usize,
}

const WRAPPERS: [Wrapper; 7] = [
    wrapper("env", &["-u", "-C", "--unset", "--chdir"], 0),
    wrapper("nice", &["-n", "--adjustment"], 0),
    wrapper("nohup", &[], 0),
    wrapper("setsid", &[], 0),
    wrapper(
        "stdbuf",
        &["-i", "-o", "-e", "--input", "--output", "--error"],
        0,
    ),
    wrapper("taskset", &[], 1),
    wrapper("timeout", &["-k", "-s", "--kill-after", "--signal"], 1),
];

const fn wrapper(
    name: &'static str,
    with_value: &'static [&'static str],
    operands: usize,
) -> Wrapper {
    Wrapper {
        name,
        with_value,
        operands,
    }
}

/// Returns the index of the word that is the program which runs in the end: the first word, or that
/// behind wrappers. A wrapper without a program stays the program.
pub(super) fn program_behind(words: &[String]) -> usize {
    let mut program = 0;
    while let Some(next) = behind(&words[program..]) {
        program += next;
    }
    program
}

/// Returns the index of the program behind the wrapper that the words begin with.
fn behind(words: &[String]) -> Option<usize> {
    let name = words.first()?.rsplit('/').next()?;
    let wrapper = WRAPPERS.iter().find(|wrapper| wrapper.name == name)?;
    let mut operands = wrapper.operands;
    let mut rest = words.iter().enumerate().skip(1);
    while let Some((index, word)) = rest.next() {
        if word.starts_with('-') {
            if wrapper.with_value.contains(&word.as_str()) {
                rest.next();
            }
        } else if operands > 0 {
            operands -= 1;
        } else if wrapper.name != "env" || variable(word).is_none() {
            return Some(index);
        }
    }
    None
}

/// Returns the variable that a word sets, as before a command in a shell.
pub(super) fn variable(word: &str) -> Option<(String, String)> {
    let (name, value) = word.split_once('=')?;
    let is_first = |it: char| it.is_ascii_alphabetic() || it == '_';
    let is_name = name.starts_with(is_first)
        && name
            .chars()
            .all(|it| it.is_ascii_alphanumeric() || it == '_');
    is_name.then(|| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_behind_wrappers_is_found() {
        for (line, program) in [
            ("caddy run", "caddy"),
            ("env A=b C= caddy run", "caddy"),
            ("env -u HOME -i A=b caddy run", "caddy"),
            ("/usr/bin/env caddy", "caddy"),
            ("nice caddy", "caddy"),
            ("nice -n 5 caddy", "caddy"),
            ("taskset -c 0,1 caddy run", "caddy"),
            ("taskset 0x3 caddy", "caddy"),
            ("stdbuf -oL -e 0 caddy", "caddy"),
            ("timeout -k 1 60 nice env X=1 ./caddy x", "./caddy"),
            ("environment A=b", "environment"),
            ("env", "env"),
            ("env A=b", "env"),
            ("nice env -u", "env"),
        ] {
            let words = shlex::split(line).expect(line);
            assert_eq!(words[program_behind(&words)], program, "{line}");
        }
    }
}
