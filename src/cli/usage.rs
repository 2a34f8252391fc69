//! What is said about a command line that makes no sense, and help.

use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ColorChoice, Command, CommandFactory, ValueEnum};
use pombo::Outcome;

use super::args::Cli;
use super::failure::Failure;
use super::output::{self, Output};

/// Prints what clap has to say. `--json` and `--color` are heeded as far as they can be told, since nothing was
/// understood.
pub(super) fn misunderstood(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nowhere is left to say it if this fails.
        let _ = std::io::stdout().write_all(rendered(error, &std::io::stdout()).as_bytes());
        return ExitCode::SUCCESS;
    }
    let hints = culprits(error, &Cli::command()).into_iter().chain(quotes(error).map(str::to_owned));
    if asked_for_json() {
        let failure = Failure::new(Outcome::Usage, message(error));
        return Output::json().exit(Err(hints.fold(failure, Failure::hint)));
    }
    output::complain(rendered(error, &std::io::stderr()).trim_end());
    for hint in hints {
        output::complain(format_args!("\n  {hint}"));
    }
    ExitCode::from(Outcome::Usage.exit_code())
}

fn rendered(error: &clap::Error, stream: &impl IsTerminal) -> String {
    let text = error.render();
    if output::colored(color(), stream) { text.ansi().to_string() } else { text.to_string() }
}

/// The first paragraph, which says what is wrong.
pub(super) fn message(error: &clap::Error) -> String {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand) {
        let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or("pombo");
        let command = usage.split(['[', '<']).next().unwrap_or_default().trim_end();
        return format!("there is no verb: `{command} --help` lists them");
    }
    let first = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Who did not type a flag may not know that it is set: names the variables that the trouble comes from.
fn culprits(error: &clap::Error, command: &Command) -> Vec<String> {
    let concerned = [ContextKind::InvalidArg, ContextKind::PriorArg].map(|kind| error.get(kind).map(words));
    let concerned: Vec<String> = concerned.into_iter().flatten().flatten().collect();
    let typed: Vec<_> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let typed = |flag: &str| typed.iter().any(|word| word.split('=').next() == Some(flag));
    let all = command.get_subcommands().chain([command]).flat_map(Command::get_arguments);
    let mut hints: Vec<String> = all
        .filter_map(|argument| {
            let flag = format!("--{}", argument.get_long()?);
            let variable = argument.get_env().filter(|name| std::env::var_os(name).is_some())?;
            let named = concerned.contains(&flag) && !typed(&flag);
            named.then(|| format!("{flag} is set by the variable {}: change it or unset it", variable.display()))
        })
        .collect();
    hints.dedup();
    hints
}

/// What a shell makes of words and patterns that are not quoted, if it may have done so.
fn quotes(error: &clap::Error) -> Option<&'static str> {
    let concerned = error.get(ContextKind::InvalidArg).map(words).unwrap_or_default();
    if error.kind() == ErrorKind::UnknownArgument && concerned.iter().any(|word| !word.starts_with('-')) {
        return Some("several words are one argument in quotes: 'hello world'");
    }
    let missing = error.kind() == ErrorKind::MissingRequiredArgument;
    let pattern = missing && concerned.iter().any(|word| word.starts_with("<PATTERN>"));
    pattern.then_some("patterns want quotes, since the shell takes > and * for itself: pombo sub 'demo.>'")
}

/// The first words of the arguments in there: `--peer` of `--peer <ADDRESS>`.
fn words(value: &ContextValue) -> Vec<String> {
    let first = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    if let ContextValue::String(text) = value {
        return vec![first(text)];
    }
    if let ContextValue::Strings(texts) = value {
        return texts.iter().map(|text| first(text)).collect();
    }
    Vec::new()
}

fn asked_for_json() -> bool {
    let variable = std::env::var("POMBO_JSON").unwrap_or_default().to_lowercase();
    let set = !["", "0", "false", "f", "no", "n", "off"].contains(&variable.as_str());
    set || std::env::args_os().any(|word| word == "--json")
}

fn color() -> ColorChoice {
    let words: Vec<_> = std::env::args_os().filter_map(|word| word.into_string().ok()).collect();
    let joined = words.iter().find_map(|word| word.strip_prefix("--color="));
    let apart =
        || words.iter().zip(words.iter().skip(1)).find_map(|(flag, value)| (flag == "--color").then_some(value));
    let chosen = joined.map(str::to_owned).or_else(|| apart().cloned());
    let chosen = chosen.or_else(|| std::env::var("POMBO_COLOR").ok()).unwrap_or_default();
    ColorChoice::from_str(&chosen, true).unwrap_or(ColorChoice::Auto)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_message_is_what_is_wrong() {
        let error = Cli::try_parse_from(["pombo", "pub", "a.b", "hi", "-n", "0"]).unwrap_err();
        assert!(message(&error).starts_with("invalid value '0'"), "{}", message(&error));
        assert!(!message(&error).contains('\n'));
        assert!(message(&Cli::try_parse_from(["pombo"]).unwrap_err()).contains("`pombo --help`"));
        assert!(message(&Cli::try_parse_from(["pombo", "config"]).unwrap_err()).contains("`pombo config --help`"));
    }

    #[test]
    fn who_did_not_quote_is_told_to() {
        let hint = |line: &[&str]| quotes(&Cli::try_parse_from([&["pombo"], line].concat()).unwrap_err());
        assert!(hint(&["pub", "demo.hello", "hello", "world"]).unwrap().contains("'hello world'"));
        assert!(hint(&["sub"]).unwrap().contains("'demo.>'"));
        assert_eq!(hint(&["pub", "demo.hello", "hi", "--frobnicate"]), None);
        assert_eq!(hint(&["pub"]), None);
    }

    #[test]
    fn what_is_concerned_is_named_by_its_flag() {
        let error = Cli::try_parse_from(["pombo", "id", "--open", "--mesh", "lab"]).unwrap_err();
        let concerned: Vec<_> = error.context().flat_map(|(_, value)| words(value)).collect();
        assert!(concerned.contains(&"--mesh".to_owned()) && concerned.contains(&"--open".to_owned()), "{concerned:?}");
    }
}
