//! Variables of the environment whose values cannot be read: clap names the option that they stand for, which nobody may
//! have typed.

use clap::Command;
use clap::error::{ContextKind, ContextValue, Error};
use std::ffi::{OsStr, OsString};

/// `error` about these arguments, with the variable that the bad value came from, if it came from one.
pub fn named(error: Error, command: &Command, typed: &[OsString], is_set: impl Fn(&OsStr) -> bool) -> Error {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let Some(variable) = variable(command, option, typed).filter(|variable| is_set(variable)) else {
        return error;
    };
    let words = format!("{} ({option})", variable.display());
    let mut error = error;
    error.insert(ContextKind::InvalidArg, ContextValue::String(words));
    error
}

/// Of the option that clap writes so, in whichever command, where it was not typed: what is typed counts.
fn variable(command: &Command, option: &str, typed: &[OsString]) -> Option<OsString> {
    // What stands behind the name is for people, and known only of commands that were called.
    let end = option.find([' ', '=', '[']).unwrap_or(option.len());
    let name = option[..end].strip_prefix("--")?;
    let own = command.get_arguments().find(|argument| {
        let names = argument.get_long_and_visible_aliases().unwrap_or_default();
        let is_typed = |name: &&str| typed.iter().any(|word| is_option(word, name));
        argument.get_long() == Some(name) && !names.iter().any(is_typed)
    });
    let own = own.and_then(|argument| argument.get_env()).map(OsStr::to_owned);
    own.or_else(|| {
        command
            .get_subcommands()
            .find_map(|child| variable(child, option, typed))
    })
}

fn is_option(word: &OsStr, name: &str) -> bool {
    let word = word.to_string_lossy();
    let long = word.strip_prefix("--").and_then(|word| word.strip_prefix(name));
    long.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    /// What is said of an error that is the same whether the value was typed or came from the environment.
    fn told(bad: &[&str], typed: &[&str], variables: &[&str]) -> String {
        let mut command = Cli::command();
        let error = command.try_get_matches_from_mut(bad).unwrap_err();
        let typed: Vec<OsString> = typed.iter().map(OsString::from).collect();
        named(error, &command, &typed, |name| {
            variables.iter().any(|set| *set == name)
        })
        .to_string()
    }

    #[test]
    fn a_value_of_the_environment_is_told_with_its_variable() {
        for (option, variable) in [
            ("--threads=x", "'CLUSTER_THREADS (--threads <N>)'"),
            ("--device=x", "'CLUSTER_DEVICE (--device <DEVICE>)'"),
            ("--http=x", "'CLUSTER_HTTP (--http <ADDR>)'"),
            ("--no-auth=x", "'CLUSTER_NO_AUTH (--no-auth[=<BOOL>])'"),
        ] {
            let name = variable.trim_start_matches('\'').split(' ').next().unwrap();
            let message = told(&["cluster", "up", option], &["cluster", "up"], &[name]);
            assert!(message.contains(variable), "{message}");
        }
    }

    #[test]
    fn a_value_that_was_typed_is_told_without() {
        let bad = ["cluster", "up", "--threads", "x"];
        for typed in [&bad[..], &["cluster", "up", "--threads=x"]] {
            let message = told(&bad, typed, &["CLUSTER_THREADS"]);
            assert!(message.contains("'--threads <N>'"), "{message}");
        }
        let message = told(&bad, &["cluster", "up"], &[]);
        assert!(message.contains("'--threads <N>'"), "{message}");
    }

    #[test]
    fn what_is_no_option_at_all_is_told_as_ever() {
        let bad = ["cluster", "up", "--no-such-flag"];
        let message = told(&bad, &bad, &["CLUSTER_THREADS"]);
        assert!(message.contains("'--no-such-flag'"), "{message}");
    }
}
