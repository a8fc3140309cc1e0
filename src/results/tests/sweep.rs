use super::*;
use crate::model::{DeletionReason, Pin};
use crate::store::Place;

/// A shelf over a store on disk, which can be closed and opened again.
struct Node {
    scratch: Scratch,
    settings: ShelfSettings,
}

impl Node {
    fn new() -> Self {
        let scratch = Scratch::new();
        let settings = settings(&scratch, 1 << 20);
        Self { scratch, settings }
    }

    fn stores(&self) -> Stores {
        let place = |name| Place::Redb(self.scratch.path().join(name));
        store::open(&StoreSettings::new(place("executions.db"), place("jobs.db"))).unwrap()
    }

    fn open(&self, stores: &Stores) -> (Arc<Shelf>, SweepReport) {
        let disk = Arc::new(FixedDisk::new(Bytes::gib(1), Bytes::gib(1)));
        let clock = Arc::new(FakeClock::at(START));
        Shelf::open(self.settings.clone(), stores.executions.clone(), disk, clock).unwrap()
    }

    fn publish(&self, shelf: &Shelf, stores: &Stores, name: &str) -> ResultEntry {
        self.scratch.write(format!("out/{name}/stdout"), noise(KIB));
        let dir = self.scratch.path().join("out").join(name);
        let (id, job) = (ExecutionId::random(), JobId::random());
        let entry = shelf.publish(&id, &job, &dir, None, &Interrupt::new()).unwrap().entry;
        let mut change = stores.executions.change();
        change.put_result(&entry);
        stores.executions.write(change).wait().unwrap();
        shelf.confirm(&entry);
        entry
    }

    fn path(&self, id: &ExecutionId, suffix: &str) -> std::path::PathBuf {
        self.settings.dir.join(format!("{id}{suffix}"))
    }
}

#[test]
fn results_are_there_after_a_restart() {
    let node = Node::new();
    let stores = node.stores();
    let (shelf, report) = node.open(&stores);
    assert_eq!(report, SweepReport::default());
    let entry = node.publish(&shelf, &stores, "a");
    let pinned = shelf.pin(&entry.execution_id, Pin { until: None }).unwrap();
    let gone = node.publish(&shelf, &stores, "b");
    shelf.remove(&gone.execution_id).unwrap();
    let used = shelf.df().results;
    drop(shelf);
    stores.close().unwrap();

    let stores = node.stores();
    let (shelf, report) = node.open(&stores);
    assert_eq!(report, SweepReport { kept: 1, ..SweepReport::default() });
    assert_eq!(shelf.df().results, used);
    assert_eq!(shelf.open_result(&entry.execution_id).unwrap().entry, pinned);
    assert!(matches!(shelf.remove(&entry.execution_id), Err(Refusal::Pinned)));
    let Err(Missing::Deleted { reason, .. }) = shelf.open_result(&gone.execution_id) else {
        panic!("it is there")
    };
    assert_eq!(reason, DeletionReason::Removed);
}

#[test]
fn ledger_and_directory_are_made_to_agree() {
    let node = Node::new();
    let stores = node.stores();
    let (shelf, _) = node.open(&stores);
    let [kept, missing, short] = ["a", "b", "c"].map(|name| node.publish(&shelf, &stores, name));
    // Killed after the row said so and before the file went.
    let marked = node.publish(&shelf, &stores, "d");
    let bytes = fs::read(node.path(&marked.execution_id, SUFFIX)).unwrap();
    shelf.remove(&marked.execution_id).unwrap();
    fs::write(node.path(&marked.execution_id, SUFFIX), bytes).unwrap();
    drop(shelf);

    fs::remove_file(node.path(&missing.execution_id, SUFFIX)).unwrap();
    fs::write(node.path(&short.execution_id, SUFFIX), b"short").unwrap();
    // Killed before the row was written, and while it was packed.
    fs::write(node.path(&ExecutionId::random(), SUFFIX), b"orphan").unwrap();
    fs::write(node.path(&ExecutionId::random(), PARTIAL_SUFFIX), b"partial").unwrap();
    fs::write(node.path(&kept.execution_id, PARTIAL_SUFFIX), b"partial").unwrap();
    fs::write(node.settings.dir.join("README"), b"a user's").unwrap();
    fs::create_dir(node.path(&ExecutionId::random(), SUFFIX)).unwrap();

    let (shelf, report) = node.open(&stores);
    assert_eq!((report.kept, report.partials, report.orphans, report.foreign), (1, 2, 2, 2));
    let mut lost: Vec<_> = report.lost.iter().map(|lost| lost.execution_id.clone()).collect();
    lost.sort();
    let mut wanted = [missing.execution_id.clone(), short.execution_id.clone()];
    wanted.sort();
    assert_eq!(lost, wanted);
    for id in [&missing.execution_id, &short.execution_id] {
        let Err(Missing::Deleted { reason, .. }) = shelf.open_result(id) else { panic!("it is there") };
        assert_eq!(reason, DeletionReason::Lost);
        assert!(!node.path(id, SUFFIX).exists());
    }
    shelf.open_result(&kept.execution_id).unwrap();
    assert!(node.settings.dir.join("README").exists());
    assert_eq!(shelf.df().results, kept.size.on_disk());
    drop(shelf);
    let (_, report) = node.open(&stores);
    assert_eq!(report, SweepReport { kept: 1, foreign: 2, ..SweepReport::default() });
}

#[test]
fn a_lower_quota_holds_from_the_start() {
    let mut node = Node::new();
    let stores = node.stores();
    let (shelf, _) = node.open(&stores);
    let entries = ["a", "b", "c"].map(|name| node.publish(&shelf, &stores, name));
    shelf.pin(&entries[1].execution_id, Pin { until: None }).unwrap();
    drop(shelf);
    node.settings.quota = Bytes(1);
    let (shelf, report) = node.open(&stores);
    // As far as pins allow.
    assert_eq!(report.evicted.len(), 2);
    assert!(report.evicted.iter().all(|gone| gone.reason == DeletionReason::Quota));
    assert_eq!(report.kept, 1);
    shelf.open_result(&entries[1].execution_id).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error() {
    let mut node = Node::new();
    node.scratch.write("file", b"");
    node.settings.dir = node.scratch.path().join("file/results");
    let stores = node.stores();
    let disk = Arc::new(FixedDisk::new(Bytes::gib(1), Bytes::gib(1)));
    let clock = Arc::new(FakeClock::at(START));
    let error = Shelf::open(node.settings.clone(), stores.executions.clone(), disk, clock).unwrap_err();
    assert!(error.to_string().starts_with("cannot create "), "{error}");
}
