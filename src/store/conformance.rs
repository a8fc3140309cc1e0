//! One suite over both back ends, and over the two stores on top of them.

use super::*;

#[test]
fn a_write_is_seen_once_its_ticket_is_answered() {
    let stores = open(&StoreSettings::memory()).unwrap();
    let change = stores.jobs.change();
    stores.jobs.write(change).wait().unwrap();
    assert_eq!(stores.stats(), Stats { commits: 1, ..Stats::default() });
    let jobs = stores.jobs.clone();
    stores.close().unwrap();
    assert!(matches!(jobs.write(jobs.change()).wait(), Err(StoreError::Closed)));
    assert!(matches!(jobs.counts(), Err(StoreError::Closed)));
}
