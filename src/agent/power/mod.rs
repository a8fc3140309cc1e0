//! Power cuts at every moment of a node's life, and a disk that fails at every moment.
//!
//! One life is lived and every step that it takes on its disk is written down ([`disk`]). For each of them what a
//! power cut would have left is built, a node is started on it, and what it makes of it is held against the rules of
//! ARCHITECTURE.md ([`check`]).

mod check;
pub(super) mod disk;
mod life;
mod notes;
mod update;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use self::check::{Told, check};
use self::disk::{Cut, Disk, Fault, Platter};
use crate::archive::testing::Scratch;

/// A failing disk takes a life for each step: every so manieth step fails. With `CODLING_POWER=all`, each does.
const FAULT_STRIDE: usize = 11;

/// Lives a life on a healthy disk.
fn a_life(scratch: &Scratch) -> Disk {
    let root = scratch.path().join("life");
    std::fs::create_dir(&root).unwrap();
    let disk = Disk::new(&root, Fault::Never);
    assert_eq!(life::live(&disk, &root), Vec::<String>::new());
    disk
}

/// Cuts the power after each step.
fn cut_everywhere(cut: impl Fn(usize) -> Cut) {
    let scratch = Scratch::new();
    let steps = a_life(&scratch).steps();
    let (mut platter, mut told) = (Platter::default(), Told::default());
    let mut failures = Vec::new();
    for (n, step) in steps.iter().enumerate() {
        platter.apply(step);
        told.hear(step);
        let root = scratch.path().join("left");
        platter.leave(cut(n), &root);
        let what = format!("after step {n} of {}, {step:?}; {:?}", steps.len(), cut(n));
        failures.extend(checked(&root, &told, what));
    }
    assert_eq!(failures, Vec::<String>::new());
}

/// What is wrong with what was left, if anything is.
fn checked(root: &Path, told: &Told, what: String) -> Option<String> {
    let result = catch_unwind(AssertUnwindSafe(|| check(root, told)));
    std::fs::remove_dir_all(root).unwrap();
    // The panic itself has been printed just before.
    result.is_err().then(|| {
        eprintln!("{what}");
        what
    })
}

#[test]
fn a_power_cut_at_any_step_costs_nothing_when_all_writes_were_kept() {
    cut_everywhere(|_| Cut::Kept);
}

#[test]
fn a_power_cut_at_any_step_costs_nothing_when_no_write_without_a_sync_was_kept() {
    cut_everywhere(|_| Cut::Lost);
}

#[test]
fn a_power_cut_at_any_step_costs_nothing_when_writes_were_torn() {
    cut_everywhere(|n| Cut::Torn(n as u64));
}

/// Lets steps fail, each in a life of its own; then the node is started on what is there.
fn fail_everywhere(fault: impl Fn(usize) -> Fault, first: usize) {
    let scratch = Scratch::new();
    let all = std::env::var("CODLING_POWER").is_ok_and(|what| what == "all");
    let steps = a_life(&scratch).tried();
    let mut failures = Vec::new();
    for n in (first..steps).step_by(if all { 1 } else { FAULT_STRIDE }) {
        let root = scratch.path().join("left");
        std::fs::create_dir(&root).unwrap();
        let disk = Disk::new(&root, fault(n));
        let what = format!("step {n} of {steps} failed, {:?}", fault(n));
        match catch_unwind(AssertUnwindSafe(|| life::live(&disk, &root))) {
            Ok(errors) => {
                let vague =
                    |error: &&String| !error.contains("Input/output error") && !error.contains("I/O error");
                failures.extend(errors.iter().filter(vague).map(|error| format!("{what}: {error}")));
                failures.extend(checked(&root, &Told::of_a_broken_disk(&disk.steps()), what));
            }
            Err(_) => failures.push(format!("{what}: a panic")),
        }
        let _ = std::fs::remove_dir_all(&root);
    }
    assert_eq!(failures, Vec::<String>::new());
}

#[test]
fn a_step_that_fails_is_an_error_and_costs_nothing_that_was_acknowledged() {
    fail_everywhere(Fault::Once, 0);
}

#[test]
fn a_disk_that_fails_for_good_is_an_error_and_costs_nothing_that_was_acknowledged() {
    fail_everywhere(Fault::From, FAULT_STRIDE / 2);
}
