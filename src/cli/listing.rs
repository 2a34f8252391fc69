//! `pombo peers`, `topics` and `services`: what is known of the mesh, once, or for as long as it is watched.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use pombo::PeerStatus;
use serde::Serialize;

use super::bus::Bus;
use super::context::Context;
use super::failure::Failure;
use super::output;
use super::progress;
use super::table::Table;
use super::{json, text};

/// How long to wait for what changes together with the first.
const GATHER: Duration = Duration::from_millis(100);
/// How old what people watch may be: round trips change without an event.
const FRESH: Duration = Duration::from_secs(1);
/// How old the rest may be: that a node is forgotten, after a day, is no event either.
const LATEST: Duration = Duration::from_secs(60);

#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Args {
    /// Go on, and list anew what changes: in place on a terminal, else below; with --json one line each time
    #[arg(long)]
    watch: bool,
}

/// A listing at one moment.
pub(super) struct Page {
    document: Vec<u8>,
    body: Body,
}

/// The listing for people.
enum Body {
    Table(Vec<String>),
    /// What there is to say if nothing is to be listed.
    Nothing(String),
    /// There is nobody else.
    Alone,
}

impl Page {
    /// The items as a document, and for people as a table; or, if there are none, what to say instead.
    pub(super) fn new<const N: usize>(
        items: Vec<impl Serialize>,
        table: &Table<N>,
        peers: &[PeerStatus],
        nothing: &str,
    ) -> Result<Self, Failure> {
        let body = match (items.is_empty(), peers.len()) {
            (false, _) => Body::Table(table.lines().collect()),
            (true, 0) => Body::Alone,
            (true, peers) => Body::Nothing(format!("{nothing} ({} in the mesh)", text::count(peers, "peer"))),
        };
        let mut document = Vec::new();
        json::append(&mut document, &json::Items { items })?;
        Ok(Self { document, body })
    }

    /// Prints it once. That nobody is there is no failure of a listing.
    fn print(&self, context: &Context) -> Result<(), Failure> {
        let output = context.output;
        match &self.body {
            _ if output.is_json() => return output.data(&self.document),
            Body::Table(_) => return output.line(self.lines(context, usize::MAX).join("\n")),
            Body::Nothing(what) => output.note(what),
            Body::Alone => {
                output.note("no other node was found");
                output.hint(context.lonely());
            }
        }
        Ok(())
    }

    /// All that there is to say to people, in so many columns.
    fn lines(&self, context: &Context, columns: usize) -> Vec<String> {
        let fit = |line: &str| text::fit(line, columns).into_owned();
        let mut lines = match &self.body {
            Body::Table(table) => table.iter().map(|line| fit(line)).collect(),
            Body::Nothing(what) => vec![fit(what)],
            Body::Alone => vec![fit("no other node was found"), fit(&context.lonely())],
        };
        if let (Body::Table(_), Some(heading)) = (&self.body, lines.first_mut()) {
            *heading = context.output.paint(output::STRONG, &heading);
        }
        lines
    }
}

/// How the nodes are listed.
type View = fn(&[PeerStatus]) -> Result<Page, Failure>;

pub(super) async fn run(context: &Context, args: Args, view: View) -> Result<(), Failure> {
    if args.watch {
        // Its work is to run until it is stopped.
        let work = async |bus: &Bus| output::while_read(watch(context, bus, view)).await;
        return context.on(context.bus(), work).await.map(|_| ());
    }
    let listed = context.on(context.bus(), async |bus: &Bus| view(&known(context, bus).await?)?.print(context)).await?;
    listed.ok_or_else(Failure::interrupted)
}

/// The other nodes, once the first look around is over.
async fn known(context: &Context, bus: &Bus) -> Result<Vec<PeerStatus>, Failure> {
    progress::waiting(context.output, "looking for other nodes", None, bus.settled()).await?;
    Ok(bus.peers().await?)
}

async fn watch(context: &Context, bus: &Bus, view: View) -> Result<(), Failure> {
    // From before the first look: nothing that happens after it is missed.
    let mut events = bus.changes().await?;
    let mut peers = known(context, bus).await?;
    let mut screen = output::is_screen(&io::stdout()).then(Screen::default).filter(|_| !context.output.is_json());
    let mut last = None;
    loop {
        let page = view(&peers)?;
        peers.iter_mut().for_each(|peer| peer.round_trip = None);
        let lasting = view(&peers)?.document;
        match &mut screen {
            Some(screen) => screen.draw(context, &page, peers.len())?,
            None if last.as_ref() == Some(&lasting) => {}
            None if context.output.is_json() => context.output.data(&page.document)?,
            None => {
                let space = if last.is_some() { "\n" } else { "" };
                let lines = page.lines(context, usize::MAX).join("\n");
                context.output.line(format_args!("{space}{lines}"))?;
            }
        }
        last = Some(lasting);
        let happened = tokio::time::timeout(if screen.is_some() { FRESH } else { LATEST }, events.next());
        match happened.await {
            Ok(None) => return Err(bus.ended()),
            Ok(Some(_)) => {
                tokio::time::sleep(GATHER).await;
                while let Some(Some(_)) = events.next().now_or_never() {}
            }
            Err(_) => {}
        }
        peers = bus.peers().await?;
    }
}

/// A part of the terminal, which is written anew in its place.
#[derive(Default)]
struct Screen {
    lines: usize,
    /// What else had been written when this was.
    others: u64,
}

impl Screen {
    fn draw(&mut self, context: &Context, page: &Page, peers: usize) -> Result<(), Failure> {
        let output = context.output;
        let head = format!("{}  {}, Ctrl-C ends this", text::now(), text::count(peers, "peer"));
        let (columns, rows) = output::size(&io::stdout()).unwrap_or((usize::MAX, usize::MAX));
        let lines = cut(page.lines(context, columns), rows.saturating_sub(2));
        // What somebody else wrote meanwhile stays, and this goes on below.
        let above = if self.others == progress::others() { self.lines } else { 0 };
        let head = output.paint(output::FAINT, text::fit(&head, columns));
        output.data(frame(above, &head, &lines).as_bytes())?;
        (self.lines, self.others) = (lines.len() + 1, progress::others());
        Ok(())
    }
}

/// As many lines as there is room for.
fn cut(mut lines: Vec<String>, room: usize) -> Vec<String> {
    if lines.len() > room {
        let more = lines.len() - room.saturating_sub(1);
        lines.truncate(room.saturating_sub(1));
        lines.push(format!("… and {more} more"));
    }
    lines
}

/// What makes a terminal show these lines in place of the last so many. What is too long for it after all, as wide
/// characters are, is cut by the terminal.
fn frame(above: usize, head: &str, lines: &[String]) -> String {
    let mut frame = "\r".to_owned();
    if above > 0 {
        // Writing to a string does not fail.
        let _ = write!(frame, "\x1b[{above}A");
    }
    frame.push_str("\x1b[?7l");
    for line in [head].into_iter().chain(lines.iter().map(String::as_str)) {
        let _ = writeln!(frame, "{line}\x1b[K");
    }
    frame.push_str("\x1b[J\x1b[?7h");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_takes_the_place_of_the_last() {
        let lines = ["a".to_owned(), "b".to_owned()];
        assert_eq!(frame(0, "head", &lines), "\r\x1b[?7lhead\x1b[K\na\x1b[K\nb\x1b[K\n\x1b[J\x1b[?7h");
        assert!(frame(3, "head", &[]).starts_with("\r\x1b[3A\x1b[?7lhead"));
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let cut = |room| cut(["a", "b", "c"].map(str::to_owned).into(), room);
        assert_eq!(cut(3), ["a", "b", "c"]);
        assert_eq!(cut(2), ["a", "… and 2 more"]);
        assert_eq!(cut(0), ["… and 3 more"]);
    }
}
