//! Where bodies come from: the command line, a file, or stdin, which is read only when that is what the user means.
//!
//! Nothing here changes a byte, and nothing reads more than a message may hold.

use std::ffi::OsString;
use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use pombo::{Limits, Outcome};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::failure::Failure;

/// A body, or lines, to be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Given(Bytes),
    File(PathBuf),
    Stdin,
}

impl Input {
    /// The rule of all verbs: `-` is stdin, and so is nothing at all unless stdin is a terminal.
    pub(super) fn choose(body: Option<OsString>, file: Option<PathBuf>, terminal: bool) -> Option<Self> {
        match (body, file) {
            (_, Some(path)) => Some(Self::File(path)),
            (Some(body), None) if body == "-" => Some(Self::Stdin),
            (Some(body), None) => Some(Self::Given(given(body))),
            (None, None) if terminal => None,
            (None, None) => Some(Self::Stdin),
        }
    }

    /// The whole of it.
    pub(super) async fn read(self) -> Result<Bytes, Failure> {
        if let Self::Given(body) = self {
            return Ok(body);
        }
        let name = self.to_string();
        if let Self::File(path) = &self
            && let Ok(file) = tokio::fs::metadata(path).await
            && file.is_file()
            && file.len() > most()
        {
            return Err(too_large(&name, &file.len().to_string()));
        }
        let mut body = Vec::new();
        let read = self.open().await?.take(most() + 1).read_to_end(&mut body).await;
        read.map_err(|error| unreadable(&name, &error))?;
        within(body, &name)
    }

    /// One body per line, without its newline, as the lines come in.
    pub(super) async fn lines(self) -> Result<impl Stream<Item = Result<Bytes, Failure>>, Failure> {
        let name = self.to_string();
        let source = self.open().await?;
        Ok(futures::stream::try_unfold((source, 1_u64), move |(mut source, number)| {
            let name = format!("line {number} of {name}");
            async move {
                let mut line = Vec::new();
                let read = (&mut source).take(most() + 2).read_until(b'\n', &mut line).await;
                if read.map_err(|error| unreadable(&name, &error))? == 0 {
                    return Ok(None);
                }
                line.pop_if(|last| *last == b'\n');
                Ok(Some((within(line, &name)?, (source, number + 1))))
            }
        }))
    }

    async fn open(self) -> Result<Source, Failure> {
        Ok(match self {
            Self::Given(body) => Box::pin(std::io::Cursor::new(body)),
            Self::File(path) => Box::pin(BufReader::new(open(&path).await?)),
            Self::Stdin => Box::pin(BufReader::new(tokio::io::stdin())),
        })
    }
}

/// What to call it.
impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("the body"),
            Self::File(path) => path.display().fmt(f),
            Self::Stdin => f.write_str("stdin"),
        }
    }
}

type Source = Pin<Box<dyn AsyncBufRead>>;

/// A body from the command line, byte by byte as it was given.
pub(super) fn given(body: OsString) -> Bytes {
    Bytes::from(body.into_encoded_bytes())
}

pub(super) fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

async fn open(path: &Path) -> Result<impl AsyncRead + use<>, Failure> {
    let opened = tokio::fs::File::open(path).await;
    opened.map_err(|error| Failure::new(Outcome::Failed, format!("cannot read {}: {error}", path.display())))
}

/// The most bytes that a body may have.
fn most() -> u64 {
    Limits::default().message as u64
}

fn within(body: Vec<u8>, name: &str) -> Result<Bytes, Failure> {
    if body.len() as u64 > most() {
        // There may be more to come: it was read no further.
        return Err(too_large(name, &format!("more than {}", most())));
    }
    Ok(Bytes::from(body))
}

fn too_large(name: &str, size: &str) -> Failure {
    let most = most();
    let message = format!(
        "{name} has {size} bytes, and a message has at most {most} (1 MiB): send it in parts, or where it lies"
    );
    Failure::new(Outcome::Rejected, message)
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::new(Outcome::Failed, format!("cannot read {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{StreamExt, TryStreamExt};

    use super::*;

    fn text(text: &str) -> Input {
        Input::Given(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn stdin_is_read_only_when_it_is_meant() {
        let choose = |body: Option<&str>, terminal| Input::choose(body.map(OsString::from), None, terminal);
        assert_eq!(choose(Some("hi"), true), Some(text("hi")));
        assert_eq!(choose(Some("hi"), false), Some(text("hi")));
        assert_eq!(choose(Some(""), false), Some(text("")));
        assert_eq!(choose(Some("-"), true), Some(Input::Stdin));
        assert_eq!(choose(None, false), Some(Input::Stdin));
        assert_eq!(choose(None, true), None);
        assert_eq!(Input::choose(None, Some("a".into()), false), Some(Input::File("a".into())));
    }

    #[tokio::test]
    async fn lines_lose_their_newline_and_nothing_else() {
        let lines: Vec<_> = text("a\r\n\n c \nlast").lines().await.unwrap().try_collect().await.unwrap();
        assert_eq!(lines, ["a\r", "", " c ", "last"]);
        let none: Vec<_> = text("").lines().await.unwrap().try_collect().await.unwrap();
        assert!(none.is_empty());
    }

    #[tokio::test]
    async fn a_line_that_no_message_holds_is_refused() {
        let longest = "x".repeat(most() as usize);
        let mut lines = pin!(text(&format!("{longest}\n{longest}x\nnever")).lines().await.unwrap());
        assert_eq!(lines.next().await.unwrap().unwrap().len(), longest.len());
        let failure = lines.next().await.unwrap().unwrap_err();
        assert_eq!(failure.outcome(), Outcome::Rejected);
        assert!(failure.message().starts_with("line 2 of "), "{}", failure.message());
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let failure = Input::File("/nowhere/at/all".into()).read().await.unwrap_err();
        assert!(failure.message().contains("/nowhere/at/all"), "{}", failure.message());
    }
}
