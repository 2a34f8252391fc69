//! Runs the command of `--exec`: of `pombo serve` for one request, body in, answer out; of `pombo sub` for one message, body in.
//! Nothing of it is left behind.

use std::ffi::OsStr;
use std::io;
use std::process::Stdio;

use bytes::Bytes;
use pombo::{Headers, Limits};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

/// How much of what a command wrote to stderr is told to the asker: its end.
const LAST_WORDS: usize = 2 * 1024;

/// What a command is told of a request.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) service: &'a str,
    pub(super) source: &'a str,
    pub(super) headers: &'a Headers,
    pub(super) body: &'a Bytes,
}

/// Runs the command for a message, and returns why it has not handled it. It prints where this process does. Dropped before it is done,
/// it kills the command.
pub(super) async fn handle(
    command: &OsStr,
    told: &[(&str, &str)],
    headers: &Headers,
    body: &Bytes,
) -> Result<(), String> {
    let mut shell = shell(command, told, headers);
    let mut child = shell.spawn().map_err(|error| format!("the command could not be started: {error}"))?;
    let group = Group::of(&child);
    if let Some(stdin) = child.stdin.take() {
        feed(stdin, body).await;
    }
    let status = child.wait().await.map_err(|error| format!("the command failed: {error}"))?;
    group.has_ended();
    if status.success() { Ok(()) } else { Err(format!("the command failed: {status}")) }
}

/// The command's stdout, or why the request is refused. Dropped before it is done, it kills the command.
pub(super) async fn run(command: &OsStr, call: Call<'_>) -> Result<Bytes, String> {
    let most = Limits::default().message;
    let mut child = spawn(command, call).map_err(|error| format!("the command could not be started: {error}"))?;
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err("the command has no pipes".to_owned());
    };
    let group = Group::of(&child);
    let ((), answer, complaint) = tokio::join!(feed(stdin, call.body), up_to(stdout, most), tail(stderr));
    let failed = |error: io::Error| format!("the command failed: {error}");
    let answer = answer.map_err(failed)?;
    // Whoever still writes can no longer be heard.
    let answer = answer.ok_or_else(|| format!("the command printed more than {most} bytes"))?;
    let status = child.wait().await.map_err(failed)?;
    group.has_ended();
    if status.success() {
        return Ok(answer);
    }
    let complaint = String::from_utf8_lossy(&complaint);
    match complaint.trim() {
        "" => Err(format!("the command failed: {status}")),
        words => Err(words.to_owned()),
    }
}

fn spawn(command: &OsStr, call: Call<'_>) -> io::Result<Child> {
    let told = [("POMBO_SERVICE", call.service), ("POMBO_SOURCE", call.source)];
    shell(command, &told, call.headers).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// The shell with that command, which knows this, in a group of its own.
fn shell(command: &OsStr, told: &[(&str, &str)], headers: &Headers) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).envs(told.iter().copied());
    shell.envs(headers.iter().map(|(name, value)| (variable(name), value)));
    shell.stdin(Stdio::piped()).kill_on_drop(true);
    #[cfg(unix)]
    shell.process_group(0);
    shell
}

/// The environment variable of a header: `POMBO_HEADER_TRACE_ID` for `trace-id`.
fn variable(header: &str) -> String {
    let name = header.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    "POMBO_HEADER_".chars().chain(name).collect()
}

/// Writes the body and closes. A command need not read it.
async fn feed(mut stdin: ChildStdin, body: &Bytes) {
    if let Err(error) = stdin.write_all(body).await {
        tracing::debug!(%error, "the command did not read its whole input");
    }
}

/// All there is, or `None` if that is more than `most`.
async fn up_to(mut source: impl AsyncRead + Unpin, most: usize) -> io::Result<Option<Bytes>> {
    let mut bytes = Vec::new();
    (&mut source).take(most as u64 + 1).read_to_end(&mut bytes).await?;
    Ok((bytes.len() <= most).then(|| Bytes::from(bytes)))
}

/// The end of what is written.
async fn tail(mut source: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut end = Vec::with_capacity(2 * LAST_WORDS);
    while let Ok(1..) = source.read_buf(&mut end).await {
        end.drain(..end.len().saturating_sub(LAST_WORDS));
    }
    end
}

/// All processes of a command, killed when this is dropped: the shell is not the only one.
struct Group {
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
}

impl Group {
    #[cfg(unix)]
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self { leader: id.and_then(rustix::process::Pid::from_raw) }
    }

    #[cfg(not(unix))]
    fn of(_: &Child) -> Self {
        Self {}
    }

    /// Nothing is left to kill.
    #[cfg_attr(not(unix), expect(unused_mut, reason = "there is nothing to forget"))]
    fn has_ended(mut self) {
        #[cfg(unix)]
        {
            self.leader = None;
        }
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // It fails if they have all ended by themselves.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn run_with(command: &str, body: &'static str, headers: &Headers) -> Result<Bytes, String> {
        let body = Bytes::from_static(body.as_bytes());
        run(OsStr::new(command), Call { service: "a.b", source: "someone", headers, body: &body }).await
    }

    async fn run_plain(command: &str, body: &'static str) -> Result<Bytes, String> {
        run_with(command, body, &Headers::default()).await
    }

    #[tokio::test]
    async fn the_question_goes_in_and_the_answer_comes_out() {
        assert_eq!(run_plain("tr a-z A-Z", "hi").await.unwrap(), "HI");
        assert_eq!(run_plain("true", "never read").await.unwrap(), "");
        let headers = [("trace-id", "7")].into_iter().collect();
        let echoed =
            run_with("printf '%s %s %s' $POMBO_SERVICE $POMBO_SOURCE $POMBO_HEADER_TRACE_ID", "", &headers).await;
        assert_eq!(echoed.unwrap(), "a.b someone 7");
    }

    #[tokio::test]
    async fn a_failure_is_told_in_the_words_of_the_command() {
        assert_eq!(run_plain("echo out of stock >&2; exit 3", "").await.unwrap_err(), "out of stock");
        assert!(run_plain("exit 3", "").await.unwrap_err().contains('3'));
        let long = run_plain("yes no | head -c 100000 >&2; exit 1", "").await.unwrap_err();
        assert!(long.len() <= LAST_WORDS, "{}", long.len());
    }

    #[tokio::test]
    async fn too_long_an_answer_is_refused() {
        let refused = tokio::time::timeout(Duration::from_secs(20), run_plain("yes", "")).await;
        assert!(refused.unwrap().unwrap_err().contains("more than 1048576 bytes"));
    }

    #[tokio::test]
    async fn what_the_command_started_dies_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let command = format!("sleep 600 & echo $! > {}.new; mv {0}.new {0}; wait", path.display());
        let running = run_plain(&command, "");
        let written = async {
            loop {
                if let Ok(text) = tokio::fs::read_to_string(&path).await {
                    break text.trim().parse::<i32>().unwrap();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let pid = tokio::select! { pid = written => pid, ended = running => panic!("{ended:?}") };
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let gone = async {
            while alive(pid) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
    }

    /// Whether the process is there and no zombie, which it stays where nobody adopts it.
    fn alive(pid: rustix::process::Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        let zombie = stat.is_ok_and(|stat| stat.contains(") Z "));
        rustix::process::test_kill_process(pid).is_ok() && !zombie
    }
}
