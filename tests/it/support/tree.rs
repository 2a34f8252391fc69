//! The command tree, as the help of the command shows it to its users.

use super::user::User;

/// A verb, or the command itself.
pub(crate) struct Verb {
    /// What is typed: `pub`, `config show`; nothing for the command itself.
    pub(crate) line: String,
    /// What `-h` prints.
    pub(crate) short: String,
    /// What `--help` prints.
    pub(crate) long: String,
}

impl Verb {
    /// The verbs below this one.
    fn below(&self) -> impl Iterator<Item = String> {
        let commands = self.long.lines().skip_while(|line| *line != "Commands:").skip(1);
        let commands = commands.take_while(|line| !line.is_empty());
        let names = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        names.filter(|name| !name.is_empty() && *name != "help").map(|name| format!("{} {name}", self.line))
    }

    /// Whether it does something itself, other than leading to those below it.
    pub(crate) fn is_leaf(&self) -> bool {
        self.below().next().is_none()
    }
}

/// The command and all its verbs, those of verbs as well.
pub(crate) fn verbs(user: &User) -> Vec<Verb> {
    let mut verbs: Vec<Verb> = Vec::new();
    let mut lines = vec![String::new()];
    while let Some(line) = lines.pop() {
        let help = |flag: &str| user.run(&format!("{line} {flag}")).expect(0).text().to_owned();
        let verb = Verb { line: line.trim().to_owned(), short: help("-h"), long: help("--help") };
        lines.extend(verb.below());
        verbs.push(verb);
    }
    verbs.sort_by(|a, b| a.line.cmp(&b.line));
    assert!(verbs.len() > 8, "where are the verbs?");
    verbs
}
