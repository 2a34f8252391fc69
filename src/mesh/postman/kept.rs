//! What is kept of messages of which notices tell: their letters, to be looked at and sent anew.

use super::notices::Notice;
use super::outbox::Outbox;
use super::store::{Change, Done, Job, Key, StoreError, Table};
use super::{Jobs, PostAnswer, Posting, Postman, Purpose, answer};
use crate::mesh::effects::Effects;
use crate::mesh::event::Ticket;
use crate::wire::letter::{self, LetterRow};

impl Outbox {
    /// Notices of an earlier run tell of these.
    pub(super) fn told(&mut self, notices: &[Notice]) {
        for notice in notices {
            if let Some(entry) = self.entries.get_mut(&notice.number) {
                entry.told += 1;
            }
        }
    }

    /// What goes from the disk with a notice: all of the message, if nothing else is left of it.
    pub(super) fn goes_with(&self, notice: &Notice, last: bool) -> Vec<Change> {
        let all = last && !self.entries.contains_key(&notice.number);
        let rows = [Table::Accepted, Table::Letters, Table::Given]
            .map(|table| Change::Delete(Key::number(table, notice.number)));
        rows.into_iter().filter(|_| all).chain([Change::Delete(notice.key())]).collect()
    }

    /// Somebody has taken note of a notice, which was the last one of its message or not.
    pub(super) fn taken(&mut self, notice: &Notice, last: bool, jobs: &mut Jobs, fx: &mut Effects) {
        if let Some(entry) = self.entries.get_mut(&notice.number) {
            entry.told = entry.told.saturating_sub(1);
        } else if last {
            self.bytes = self.bytes.saturating_sub(notice.bytes);
            // They are there still if two were taken at once.
            jobs.note(self.goes_with(notice, last), fx);
        }
    }
}

impl Postman {
    /// Reads the letter that a notice tells of.
    pub(crate) fn show_letter(&mut self, ticket: Ticket, (number, recipient): (u64, &str), fx: &mut Effects) {
        if self.notices.of(number, recipient).is_none() {
            return answer(fx, ticket, PostAnswer::Nobody);
        }
        let job = Job { changes: Vec::new(), reads: vec![Key::number(Table::Letters, number)] };
        self.jobs.begin(job, Purpose::Show { ticket }, fx);
    }

    /// Accepts a letter again for a recipient that did not get it, in place of the notice.
    pub(crate) fn retry(
        &mut self,
        ticket: Ticket,
        (number, recipient): (u64, &str),
        posting: Posting,
        fx: &mut Effects,
    ) {
        self.stale = true;
        match self.notices.of(number, recipient) {
            None => answer(fx, ticket, PostAnswer::Nobody),
            Some((serial, notice)) => {
                let limits = self.room();
                self.outbox.accept((ticket, posting), Some((serial, notice)), limits, &mut self.jobs, fx);
            }
        }
    }

    /// Somebody has taken note of a notice.
    pub(crate) fn take_notice(&mut self, ticket: Ticket, (number, recipient): (u64, &str), fx: &mut Effects) {
        let Some((serial, notice)) = self.notices.of(number, recipient) else {
            return answer(fx, ticket, PostAnswer::Done);
        };
        let changes = self.outbox.goes_with(notice, self.notices.tell_of(number) == 1);
        self.jobs.begin(Job { changes, reads: Vec::new() }, Purpose::Taken { ticket, serial }, fx);
    }

    /// A notice is gone from the disk.
    pub(super) fn notice_taken(&mut self, serial: u64, fx: &mut Effects) {
        if let Some(notice) = self.notices.taken(serial) {
            self.outbox.taken(&notice, self.notices.tell_of(notice.number) == 0, &mut self.jobs, fx);
        }
    }
}

/// What was read of a letter.
pub(super) fn shown(result: Result<Done, StoreError>) -> PostAnswer {
    let row = match result {
        Err(error) => return PostAnswer::Failed(error.to_string()),
        Ok(done) => done.rows.into_iter().next().flatten(),
    };
    let row = row.and_then(|row| letter::read::<LetterRow>(&row).ok());
    row.map_or(PostAnswer::Lost, |row| PostAnswer::Letter(row.sealed))
}
