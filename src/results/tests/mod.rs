//! The shelf over real files, real stores, and disks that run full.

mod dates;
mod evict;
mod fetched;
mod publish;
mod storm;
mod sweep;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::shelf::{PARTIAL_SUFFIX, SUFFIX};
use super::*;
use crate::archive::testing::Scratch;
use crate::archive::{Level, PackOptions};
use crate::model::{Bytes, Deletion, ExecutionId, JobId, ResultEntry, Timestamp};
use crate::store::{self, StoreSettings, Stores};
use crate::sys::{DiskProbe, EARLIEST_BELIEVABLE, FakeClock, FixedDisk, Interrupt, Space};

pub(super) const START: Timestamp = Timestamp(EARLIEST_BELIEVABLE.0 + 1_000_000_000_000);
pub(super) const KIB: u64 = 1024;

/// A disk whose free space follows the files in a directory, and which is asked at every step of a packing run.
pub(super) struct LiveDisk {
    dir: std::path::PathBuf,
    total: AtomicU64,
    /// The most that was ever there.
    peak: AtomicU64,
}

impl LiveDisk {
    pub(super) fn new(dir: &Path, total: u64) -> Arc<Self> {
        Arc::new(Self { dir: dir.to_owned(), total: total.into(), peak: AtomicU64::new(0) })
    }

    pub(super) fn peak(&self) -> u64 {
        self.peak.load(Ordering::SeqCst)
    }
}

/// What the files of a directory occupy.
pub(super) fn occupied(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: io::Result<fs::DirEntry>| entry.and_then(|e| e.metadata()).map_or(0, |m| m.len());
    entries.map(|entry| Bytes(size(entry)).on_disk().0).sum()
}

impl DiskProbe for LiveDisk {
    fn space(&self) -> io::Result<Space> {
        let used = occupied(&self.dir);
        self.peak.fetch_max(used, Ordering::SeqCst);
        let total = self.total.load(Ordering::SeqCst);
        Ok(Space { total: Bytes(total), free: Bytes(total.saturating_sub(used)) })
    }
}

/// A shelf with everything around it.
pub(super) struct Bench {
    pub(super) scratch: Scratch,
    pub(super) stores: Stores,
    pub(super) clock: Arc<FakeClock>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) heard: Arc<Mutex<Vec<Deletion>>>,
    pub(super) settings: ShelfSettings,
}

pub(super) fn settings(scratch: &Scratch, quota: u64) -> ShelfSettings {
    ShelfSettings {
        dir: scratch.path().join("results"),
        quota: Bytes(quota),
        min_free: Bytes::ZERO,
        retention: Duration::ZERO,
        max_count: 1000,
        max_size: Bytes(u64::MAX),
        evict_first: crate::model::EvictFirst::Oldest,
        // Sizes are then known beforehand.
        pack: PackOptions { level: Level::STORE, ..PackOptions::default() },
    }
}

impl Bench {
    /// With a quota, on a disk that has no other limits.
    pub(super) fn new(quota: u64) -> Self {
        Self::with(quota, |_| {}, |_| Arc::new(FixedDisk::new(Bytes::gib(100), Bytes::gib(100))))
    }

    pub(super) fn with(
        quota: u64,
        change: impl FnOnce(&mut ShelfSettings),
        disk: impl FnOnce(&Path) -> Arc<dyn DiskProbe>,
    ) -> Self {
        let scratch = Scratch::new();
        let mut settings = settings(&scratch, quota);
        change(&mut settings);
        let stores = store::open(&StoreSettings::memory()).unwrap();
        Self::over(scratch, settings, stores, disk)
    }

    pub(super) fn over(
        scratch: Scratch,
        settings: ShelfSettings,
        stores: Stores,
        disk: impl FnOnce(&Path) -> Arc<dyn DiskProbe>,
    ) -> Self {
        let clock = Arc::new(FakeClock::at(START));
        let disk = disk(&settings.dir);
        let (shelf, report) =
            Shelf::open(settings.clone(), stores.executions.clone(), disk, Arc::clone(&clock) as _).unwrap();
        assert_eq!(report, SweepReport::default());
        let heard: Arc<Mutex<Vec<Deletion>>> = Arc::default();
        let hears = Arc::clone(&heard);
        shelf.on_deleted(Box::new(move |deletion| hears.lock().unwrap().push(deletion.clone())));
        Self { scratch, stores, clock, shelf, heard, settings }
    }

    /// An output directory with one file of noise.
    pub(super) fn output(&self, size: u64) -> std::path::PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("out-{}", NEXT.fetch_add(1, Ordering::SeqCst));
        self.scratch.write(format!("{name}/stdout"), noise(size));
        self.scratch.path().join(name)
    }

    /// Publishes as the compute role does: archive, row, confirmation.
    pub(super) fn publish(&self, size: u64) -> Result<ResultEntry, PublishError> {
        self.publish_for(size, None)
    }

    pub(super) fn publish_for(
        &self,
        size: u64,
        retention: Option<Duration>,
    ) -> Result<ResultEntry, PublishError> {
        let (id, job) = (ExecutionId::random(), JobId::random());
        let dir = self.output(size);
        let published = self.shelf.publish(&id, &job, &dir, retention, &Interrupt::new())?;
        self.confirm(&published.entry);
        // Each result is a little younger than the one before.
        self.advance(Duration::from_secs(1));
        Ok(published.entry)
    }

    pub(super) fn confirm(&self, entry: &ResultEntry) {
        let mut change = self.stores.executions.change();
        change.put_result(entry);
        self.stores.executions.write(change).wait().unwrap();
        self.shelf.confirm(entry);
    }

    pub(super) fn advance(&self, by: Duration) {
        use crate::sys::Clock;
        self.clock.set(self.clock.now().plus(by));
    }

    /// What the directory holds, by name.
    pub(super) fn files(&self) -> BTreeMap<String, u64> {
        fs::read_dir(&self.settings.dir)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())
            })
            .collect()
    }

    /// Files, rows and counters agree.
    pub(super) fn check(&self) {
        let mut rows = BTreeMap::new();
        for entry in self.shelf.list().unwrap().into_iter().filter(ResultEntry::is_stored) {
            rows.insert(format!("{}{SUFFIX}", entry.execution_id), entry.size.0);
        }
        assert_eq!(self.files(), rows);
        let df = self.shelf.df();
        let occupied: u64 = rows.values().map(|size| Bytes(*size).on_disk().0).sum();
        assert_eq!(df.results, Bytes(occupied));
        assert_eq!(df.count as usize, rows.len());
        assert!(df.results.plus(df.scratch).plus(df.cache) <= df.quota, "{df:?}");
    }

    pub(super) fn gone(&self) -> Vec<ExecutionId> {
        self.heard.lock().unwrap().iter().map(|deletion| deletion.execution_id.clone()).collect()
    }
}

/// Bytes that do not compress.
pub(super) fn noise(size: u64) -> Vec<u8> {
    let mut x = 0x9E37_79B9_7F4A_7C15_u64;
    std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_be_bytes()[2]
    })
    .take(usize::try_from(size).unwrap())
    .collect()
}
