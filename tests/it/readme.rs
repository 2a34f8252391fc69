//! The README as it is: its sessions are run, and what it lists is compared with what there is.

use pombo::Outcome;

use crate::support::sessions;
use crate::support::user::User;

const README: &str = include_str!("../../README.md");

#[test]
fn the_sessions_go_as_printed() {
    let sessions = sessions::run(README, User::newcomer);
    assert!(sessions >= 5, "where are the sessions?");
}

#[test]
fn the_exit_codes_are_those_of_the_library() {
    let listed: Vec<_> = README.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| code")).collect();
    let row = |outcome: Outcome| format!("| {} | {outcome} | {} |", outcome.exit_code(), outcome.meaning());
    assert_eq!(listed, Outcome::ALL.map(row));
}

#[test]
fn the_examples_are_those_that_are_there() {
    let mut there: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    there.sort();
    let line = README.lines().find(|line| line.starts_with("The [examples]")).unwrap();
    let mut listed: Vec<_> = line.split('`').skip(1).step_by(2).filter(|name| !name.contains(' ')).collect();
    listed.sort_unstable();
    assert_eq!(listed, there);
}

#[test]
fn what_it_links_to_is_there() {
    for link in
        README.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.contains("://"))
    {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(link);
        assert!(path.exists(), "{link}");
    }
}
