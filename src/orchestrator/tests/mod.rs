//! The orchestrator against a real store in memory and a scripted compute role.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::model::backoff::STEADY;
use crate::model::message::{FromCompute, ToCompute};
use crate::model::{
    Bytes, Deletion, DeletionReason, ExecutionId, ExecutionState, Failure, FailureCode, JobId, JobSpec,
    JobState, JobType, RunOutput, Timestamp,
};
use crate::store::{StoreSettings, Stores, open};
use crate::sys::FakeClock;

use super::handle::CoreError;
use super::{ENDED_KEPT, ENDED_SLACK, EXECUTIONS_MAX, FOREVER_HISTORY_MAX, Orchestrator, Parts};

mod renew;
mod restart;

/// What went to the compute role, and a bell that rings when something did.
#[derive(Clone, Default)]
struct Sent(Rc<RefCell<Vec<ToCompute>>>, Rc<Notify>);

impl Sent {
    async fn another(&self) {
        tokio::time::timeout(Duration::from_secs(60), self.1.notified()).await.expect("nothing was sent");
    }
}

fn spec(count: u32) -> JobSpec {
    let body = format!(
        r#"{{"namespace":"default","type":"batch","count":{count},
            "task":{{"name":"main","engine":{{"kind":"other"}}}}}}"#
    );
    serde_json::from_str(&body).unwrap()
}

fn role(stores: &Stores) -> (Orchestrator, Sent) {
    role_with(stores, STEADY)
}

fn role_with(stores: &Stores, steady: Duration) -> (Orchestrator, Sent) {
    let sent = Sent::default();
    let link = sent.clone();
    let parts = Parts {
        node: "n-test".parse().unwrap(),
        store: stores.jobs.clone(),
        clock: Arc::new(FakeClock::at(Timestamp(1))),
        defaults: Box::new(|_| ()),
        link: Box::new(move |message| {
            link.0.borrow_mut().push(message);
            link.1.notify_one();
        }),
        steady,
    };
    (Orchestrator::new(parts), sent)
}

/// Runs on a current-thread runtime, where the role lives.
fn on_core<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// What was asked since the last look: ids of bids, of accepts, of cancels.
fn taken(sent: &Sent) -> (Vec<ExecutionId>, Vec<ExecutionId>, Vec<ExecutionId>) {
    let (mut asked, mut accepted, mut cancelled) = (Vec::new(), Vec::new(), Vec::new());
    for message in sent.0.borrow_mut().drain(..) {
        match message {
            ToCompute::AskForBid { execution, .. } => asked.push(execution.id),
            ToCompute::BidAccepted(id) => accepted.push(id),
            ToCompute::Cancel { id, .. } => cancelled.push(id),
            ToCompute::BidRejected(_) | ToCompute::Acknowledged(_) | ToCompute::Forget(_) => {}
        }
    }
    (asked, accepted, cancelled)
}

/// Waits until something was asked; what else was sent meanwhile is forgotten.
async fn asked_next(sent: &Sent) -> Vec<ExecutionId> {
    loop {
        let (asked, ..) = taken(sent);
        if !asked.is_empty() {
            return asked;
        }
        sent.another().await;
    }
}

/// Waits until something was cancelled; what else was sent meanwhile is forgotten.
async fn cancelled_next(sent: &Sent) -> Vec<ExecutionId> {
    loop {
        let (.., cancelled) = taken(sent);
        if !cancelled.is_empty() {
            return cancelled;
        }
        sent.another().await;
    }
}

fn says_yes(id: &ExecutionId) -> FromCompute {
    FromCompute::BidResult { id: id.clone(), refused: None }
}

fn done(id: &ExecutionId) -> FromCompute {
    FromCompute::RunResult {
        id: id.clone(),
        output: RunOutput::default(),
        published: true,
        notes: Vec::new(),
    }
}

fn fails(id: &ExecutionId, code: FailureCode) -> FromCompute {
    FromCompute::ComputeError { id: id.clone(), failure: Failure::new(code, "because") }
}

fn state(stores: &Stores, id: &JobId) -> JobState {
    stores.jobs.get(id).unwrap().unwrap().state
}

/// Waits until everything sent to the store so far is in it.
async fn settle(stores: &Stores) {
    stores.jobs.write(stores.jobs.change()).await.unwrap();
}

fn service(count: u32) -> JobSpec {
    JobSpec { job_type: JobType::Service, ..spec(count) }
}

/// Takes an execution and begins it.
fn starts(role: &Orchestrator, id: &ExecutionId) {
    role.on_report(says_yes(id));
    role.on_report(FromCompute::Started(id.clone()));
}

#[test]
fn a_job_is_on_disk_before_anybody_is_asked_and_completes_when_all_did() {
    let stores = open(&StoreSettings::memory()).unwrap();
    on_core(async {
        let (role, sent) = role(&stores);
        let id = role.submit(spec(2)).await.unwrap().job_id;
        let record = stores.jobs.get(&id).unwrap().unwrap();
        assert_eq!((record.state, record.name.as_str()), (JobState::Pending, id.as_str()));
        assert_eq!(stores.jobs.body(&record.digest).unwrap().unwrap().count, 2);
        let (asked, ..) = taken(&sent);
        assert_eq!(asked.len(), 2);
        for e in &asked {
            role.on_report(says_yes(e));
            role.on_report(FromCompute::Started(e.clone()));
        }
        assert_eq!(taken(&sent).1, asked);
        role.on_report(done(&asked[0]));
        settle(&stores).await;
        assert_eq!(state(&stores, &id), JobState::Running);
        role.on_report(done(&asked[1]));
        // Repeated messages, and ones about what nobody knows, change nothing.
        role.on_report(done(&asked[1]));
        role.on_report(fails(&asked[1], FailureCode::Internal));
        role.on_report(done(&ExecutionId::random()));
        settle(&stores).await;
        assert_eq!(state(&stores, &id), JobState::Completed);
        assert!(role.state.borrow().active.is_empty() && role.state.borrow().by_execution.is_empty());
        let history = stores.jobs.history(&id, 0, 100).unwrap();
        assert_eq!(
            history.iter().map(|e| e.seq).collect::<Vec<_>>(),
            (1..=history.len() as u64).collect::<Vec<_>>()
        );
        assert!(matches!(role.stop(&id, "late").await, Err(CoreError::Conflict(_))));
    });
}

#[test]
fn one_failure_fails_the_job_and_stops_its_other_executions() {
    let stores = open(&StoreSettings::memory()).unwrap();
    on_core(async {
        let (role, sent) = role(&stores);
        let id = role.submit(spec(3)).await.unwrap().job_id;
        let (asked, ..) = taken(&sent);
        for e in &asked {
            role.on_report(says_yes(e));
        }
        role.on_report(fails(&asked[0], FailureCode::Timeout));
        assert_eq!(taken(&sent).2, asked[1..]);
        for e in &asked[1..] {
            role.on_report(fails(e, FailureCode::Cancelled));
        }
        settle(&stores).await;
        let record = stores.jobs.get(&id).unwrap().unwrap();
        assert_eq!((record.state, record.message.as_str()), (JobState::Failed, "because"));
        let states: Vec<_> = stores.jobs.executions(&id).unwrap().iter().map(|row| row.state).collect();
        assert_eq!(states.iter().filter(|s| **s == ExecutionState::Cancelled).count(), 2);
        assert!(role.state.borrow().active.is_empty());
        // As upstream has it, a failed job may still be stopped.
        role.stop(&id, "tidy").await.unwrap();
        assert_eq!(state(&stores, &id), JobState::Stopped);
    });
}

#[test]
fn a_refusal_fails_the_job_with_the_reason() {
    let stores = open(&StoreSettings::memory()).unwrap();
    on_core(async {
        let (role, sent) = role(&stores);
        let id = role.submit(spec(1)).await.unwrap().job_id;
        let (asked, ..) = taken(&sent);
        let failure = Failure::new(FailureCode::Unsupported, "no such engine");
        role.on_report(FromCompute::BidResult { id: asked[0].clone(), refused: Some(failure) });
        settle(&stores).await;
        let record = stores.jobs.get(&id).unwrap().unwrap();
        assert_eq!(record.state, JobState::Failed);
        assert!(
            record.message.contains("n-test") && record.message.contains("no such engine"),
            "{}",
            record.message
        );
    });
}

#[test]
fn timeouts_fail_the_job() {
    let stores = open(&StoreSettings::memory()).unwrap();
    on_core(async {
        let (role, sent) = role(&stores);
        let soon = Duration::from_millis(20);
        let mut waits = spec(1);
        waits.task.timeouts.queue = soon;
        let waits = role.submit(waits).await.unwrap().job_id;
        let (asked, ..) = taken(&sent);
        role.on_report(says_yes(&asked[0]));
        assert_eq!(cancelled_next(&sent).await, asked);
        // One that has started is not bound by the queue's limit, but by the total one.
        let mut runs = spec(1);
        (runs.task.timeouts.queue, runs.task.timeouts.total) = (soon * 25, soon * 75);
        let runs = role.submit(runs).await.unwrap().job_id;
        let (asked, ..) = taken(&sent);
        role.on_report(says_yes(&asked[0]));
        role.on_report(FromCompute::Started(asked[0].clone()));
        assert_eq!(cancelled_next(&sent).await, asked);
        settle(&stores).await;
        for (id, limit) in [(&waits, "QueueTimeout"), (&runs, "TotalTimeout")] {
            let record = stores.jobs.get(id).unwrap().unwrap();
            assert_eq!(record.state, JobState::Failed);
            assert!(record.message.contains(limit), "{}", record.message);
        }
    });
}

#[test]
fn the_number_of_active_executions_is_bounded() {
    let stores = open(&StoreSettings::memory()).unwrap();
    on_core(async {
        let (role, sent) = role(&stores);
        let each = 1000;
        for _ in 0..EXECUTIONS_MAX / each as usize {
            role.submit(spec(each)).await.unwrap();
        }
        assert!(matches!(role.submit(spec(1)).await, Err(CoreError::TooManyJobs { .. })));
        assert_eq!(taken(&sent).0.len(), EXECUTIONS_MAX);
    });
}

#[test]
fn an_ops_job_skips_the_second_round() {
    let stores = open(&StoreSettings::memory()).unwrap();
    on_core(async {
        let (role, sent) = role(&stores);
        role.submit(JobSpec { job_type: JobType::Ops, ..spec(1) }).await.unwrap();
        assert!(matches!(&sent.0.borrow()[0], ToCompute::AskForBid { run_now: true, .. }));
    });
}

#[test]
fn each_result_that_goes_has_its_own_entry_in_the_history() {
    let stores = open(&StoreSettings::memory()).unwrap();
    on_core(async {
        let (role, sent) = role(&stores);
        let job_id = role.submit(spec(3)).await.unwrap().job_id;
        let (asked, ..) = taken(&sent);
        for e in &asked {
            role.on_report(says_yes(e));
            role.on_report(done(e));
        }
        settle(&stores).await;
        let before = stores.jobs.last_seq(&job_id).unwrap();
        for execution_id in asked {
            let (size, reason) = (Bytes::kib(1), DeletionReason::Quota);
            let deletion = Deletion { execution_id, job_id: job_id.clone(), size, reason };
            assert!(!role.has_noted(&deletion).unwrap());
            role.note_deletion(&deletion).await.unwrap();
            assert!(role.has_noted(&deletion).unwrap());
        }
        let history = stores.jobs.history(&job_id, before, 100).unwrap();
        let seqs: Vec<u64> = history.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, [before + 1, before + 2, before + 3], "{history:#?}");
    });
}

#[test]
fn whatever_ends_of_a_service_is_run_again_and_the_rest_leaves() {
    let stores = open(&StoreSettings::memory()).unwrap();
    on_core(async {
        let (role, sent) = role(&stores);
        let id = role.submit(service(1)).await.unwrap().job_id;
        let (mut current, ..) = taken(&sent);
        let ends: [fn(&ExecutionId) -> FromCompute; 4] = [
            done,
            |e| fails(e, FailureCode::Trap),
            |e| fails(e, FailureCode::NodeRestart),
            |e| fails(e, FailureCode::Unsupported),
        ];
        for n in 1..=300 {
            starts(&role, &current[0]);
            role.on_report(ends[n % ends.len()](&current[0]));
            let next = asked_next(&sent).await;
            let row = stores.jobs.execution(&next[0]).unwrap().unwrap();
            assert_eq!((row.restarts as usize, row.previous.as_ref()), (n, Some(&current[0])));
            current = next;
        }
        settle(&stores).await;
        assert_eq!(state(&stores, &id), JobState::Running);
        let rows = stores.jobs.executions(&id).unwrap();
        assert!(rows.len() <= ENDED_KEPT + ENDED_SLACK + 1, "{} executions", rows.len());
        assert!(
            rows.iter().filter(|row| row.state.is_terminal()).all(|row| row.state == ExecutionState::Failed)
        );
        assert_eq!(role.state.borrow().by_execution.len(), rows.len());
        let history = stores.jobs.history(&id, 0, usize::MAX).unwrap();
        assert_eq!(history.len() as u64, FOREVER_HISTORY_MAX);
        assert_eq!((history[0].seq, history[0].message.as_str()), (1, "job submitted"));
        let message = |event: &crate::model::HistoryEvent| event.message.clone();
        let told: Vec<String> = history.iter().rev().take(16).map(message).collect();
        for reason in ["completed unexpectedly with exit code 0, result published", "because"] {
            assert!(told.iter().any(|m| m == reason), "{told:?}");
        }
        role.stop(&id, "enough").await.unwrap();
        role.on_report(fails(&current[0], FailureCode::Cancelled));
        settle(&stores).await;
        assert_eq!(state(&stores, &id), JobState::Stopped);
        assert!(role.state.borrow().active.is_empty() && role.state.borrow().by_execution.is_empty());
    });
}

#[test]
fn a_run_that_lasts_makes_the_ends_before_it_count_no_more() {
    let stores = open(&StoreSettings::memory()).unwrap();
    on_core(async {
        let (role, sent) = role_with(&stores, Duration::from_millis(20));
        role.submit(service(1)).await.unwrap();
        let (mut current, ..) = taken(&sent);
        for _ in 0..3 {
            starts(&role, &current[0]);
            role.on_report(done(&current[0]));
            current = asked_next(&sent).await;
        }
        let restarts = |id: &ExecutionId| stores.jobs.execution(id).unwrap().unwrap().restarts;
        assert_eq!(restarts(&current[0]), 3);
        starts(&role, &current[0]);
        let steady = async {
            // A timer of the role's own, of which nothing is sent.
            while restarts(&current[0]) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), steady).await.expect("it never counts as steady");
        role.on_report(done(&current[0]));
        let current = asked_next(&sent).await;
        assert_eq!(restarts(&current[0]), 1);
    });
}

#[test]
fn nothing_may_be_wanted() {
    let stores = open(&StoreSettings::memory()).unwrap();
    on_core(async {
        let (role, _sent) = role(&stores);
        let batch = role.submit(spec(0)).await.unwrap().job_id;
        let service = role.submit(service(0)).await.unwrap().job_id;
        settle(&stores).await;
        assert_eq!(
            (state(&stores, &batch), state(&stores, &service)),
            (JobState::Completed, JobState::Running)
        );
    });
}
