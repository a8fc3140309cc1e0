//! Lists of jobs, a page at a time.

use std::ops::ControlFlow;

use crate::model::{JobId, JobRecord};

use super::super::StoreError;
use super::super::keys::{Key, id_at};
use super::{JobStore, SUBMITTED, TAG, TIMELINE};

/// Ids that a list reads at a time.
const ID_CHUNK: usize = 64;

/// Which time a list is ordered by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListOrder {
    /// When a job was submitted.
    #[default]
    Created,
    /// When it last changed.
    Modified,
}

/// A page of a list of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListQuery {
    /// Order, oldest first.
    pub order: ListOrder,
    /// Newest first instead.
    pub reverse: bool,
    /// How many of the jobs that pass the filter are left out at the beginning.
    pub offset: u64,
    /// How many jobs the page has at most.
    pub limit: usize,
}

impl JobStore {
    /// A page of the jobs that pass the filter. Loads no bodies; holds the page in memory, and for
    /// [`ListOrder::Modified`] an id and a time for each job there is.
    ///
    /// # Errors
    /// The database cannot be read, or a record makes no sense.
    pub fn list(
        &self,
        query: &ListQuery,
        filter: &mut dyn FnMut(&JobRecord) -> bool,
    ) -> Result<Vec<JobRecord>, StoreError> {
        let mut page = Page { left_out: query.offset, limit: query.limit, jobs: Vec::new() };
        match query.order {
            ListOrder::Created => self.each_id(query.reverse, |id| Ok(page.add(self.get(&id)?, filter)))?,
            ListOrder::Modified => {
                let mut times = Vec::new();
                self.each_id(false, |id| {
                    times.extend(self.get(&id)?.map(|record| (record.modified, record.id)));
                    Ok(ControlFlow::Continue(()))
                })?;
                times.sort_unstable();
                if query.reverse {
                    times.reverse();
                }
                for (_, id) in times {
                    if page.add(self.get(&id)?, filter).is_break() {
                        break;
                    }
                }
            }
        }
        Ok(page.jobs)
    }

    /// Hands over all jobs in the order of their submission, oldest first. `visit` may read, too.
    ///
    /// # Errors
    /// The database cannot be read, a record makes no sense, or `visit` failed.
    pub fn each(
        &self,
        visit: &mut dyn FnMut(JobRecord) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        self.each_id(false, |id| self.get(&id)?.map_or(Ok(ControlFlow::Continue(())), &mut *visit))
    }

    /// The job that came last, by the clock of its time.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn newest(&self) -> Result<Option<JobId>, StoreError> {
        let mut newest = None;
        self.each_id(true, |id| {
            newest = Some(id);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(newest)
    }

    /// Hands over the ids of all jobs in the order of their submission. Reads [`ID_CHUNK`] at a time, so that
    /// `visit` may read too: no scan is open then.
    fn each_id(
        &self,
        reverse: bool,
        mut visit: impl FnMut(JobId) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let (mut from, mut to) = Key::kind(TIMELINE).range();
        loop {
            let mut keys = Vec::new();
            self.db.scan(&from, &to, reverse, &mut |key, _| {
                if key.get(TAG) == Some(&SUBMITTED) {
                    keys.push(key.to_vec());
                }
                if keys.len() < ID_CHUNK { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            let Some(last) = keys.last().cloned() else { return Ok(()) };
            for key in keys {
                if visit(id_at(&key, TAG + 1)?)?.is_break() {
                    return Ok(());
                }
            }
            if reverse {
                to = last;
            } else {
                from = last;
                from.push(0);
            }
        }
    }
}

/// A page that is being filled.
struct Page {
    left_out: u64,
    limit: usize,
    jobs: Vec<JobRecord>,
}

impl Page {
    fn add(
        &mut self,
        record: Option<JobRecord>,
        filter: &mut dyn FnMut(&JobRecord) -> bool,
    ) -> ControlFlow<()> {
        if self.jobs.len() >= self.limit {
            return ControlFlow::Break(());
        }
        if let Some(record) = record.filter(|record| filter(record)) {
            match self.left_out.checked_sub(1) {
                Some(less) => self.left_out = less,
                None => self.jobs.push(record),
            }
        }
        ControlFlow::Continue(())
    }
}
