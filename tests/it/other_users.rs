//! A node's socket is its user's: whoever else gets at it is turned away.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::user::User;

const SOCKET: &str = "POMBO_TEST_SOCKET";
/// The user that owns nothing.
const NOBODY: u32 = 65_534;
/// A greeting, as in docs/wire.md.
const HELLO: [u8; 7] = [0, 0, 0, 3, 1, 0, 0];

/// What a node answers to a greeting: nothing, if it turns us away.
fn greet(socket: &Path) -> usize {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // It may have hung up already.
    let _ = stream.write_all(&HELLO);
    stream.read(&mut [0; 64]).unwrap_or(0)
}

#[test]
#[ignore = "a process that the other test starts"]
fn greets() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    println!("answered {}", greet(Path::new(&socket)));
}

#[test]
fn a_process_of_another_user_is_turned_away_though_it_gets_at_the_socket() {
    let user = User::new();
    let (_node, _) = user.node("");
    let socket = user.sockets().remove(0);
    assert!(greet(&socket) > 0, "its own user is not turned away");

    // Somebody has made all of it accessible.
    let open = |path: &Path| std::fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    open(&socket);
    socket.ancestors().skip(1).take_while(|path| path.starts_with(user.dir())).for_each(open);
    let program = user.dir().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(PathBuf::from(&program));
    command.args(["--exact", "--ignored", "--nocapture", "other_users::greets"]).env(SOCKET, &socket);
    let told = match command.uid(NOBODY).current_dir("/").output() {
        Ok(told) => told,
        Err(error) => return eprintln!("SKIPPED: no process of another user can be started here: {error}"),
    };
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("answered 0"), "{told}");
}
