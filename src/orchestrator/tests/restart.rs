//! What a start makes of what the last run left.

use super::*;
use crate::model::state::ExecutionEvent;
use crate::model::{HistoryEvent, Level, Topic};

#[test]
fn a_restart_asks_again_in_the_old_order_and_replaces_what_was_cut_off() {
    let stores = open(&StoreSettings::memory()).unwrap();
    let (mut ids, mut executions) = (Vec::new(), Vec::new());
    on_core(async {
        let (role, sent) = role(&stores);
        for priority in [0, 5, 0] {
            let id = role.submit(JobSpec { priority, ..spec(1) }).await.unwrap().job_id;
            ids.push(id);
            executions.extend(taken(&sent).0);
        }
        role.on_report(says_yes(&executions[0]));
        role.on_report(FromCompute::Started(executions[0].clone()));
        settle(&stores).await;
    });
    on_core(async {
        let (role, sent) = role(&stores);
        assert_eq!(role.recover().unwrap(), 3);
        let (asked, ..) = taken(&sent);
        assert_eq!(asked[0], executions[1], "priority first");
        assert_eq!(asked.len(), 3);
        // What was never started is taken again; the old yes is repeated.
        role.on_report(says_yes(&executions[2]));
        assert_eq!(taken(&sent).1, [executions[2].clone()]);
        // What ran was cut off: another execution of the same partition, three times at most.
        let mut current = executions[0].clone();
        for restart in 1..=4 {
            role.on_report(fails(&current, FailureCode::NodeRestart));
            if restart == 4 {
                break;
            }
            let asked = asked_next(&sent).await;
            let row = stores.jobs.execution(&asked[0]).unwrap().unwrap();
            assert_eq!((row.restarts, row.previous), (restart, Some(current.clone())));
            current = asked[0].clone();
        }
        settle(&stores).await;
        assert_eq!(state(&stores, &ids[0]), JobState::Failed);
    });
}

#[test]
fn a_restart_decides_what_a_power_cut_kept_from_following() {
    for (spec, code, again) in [
        (spec(1), FailureCode::NodeRestart, true),
        (spec(1), FailureCode::Trap, false),
        (service(1), FailureCode::Trap, true),
    ] {
        let stores = open(&StoreSettings::memory()).unwrap();
        let (id, execution) = on_core(async {
            let (role, sent) = role(&stores);
            let id = role.submit(spec).await.unwrap().job_id;
            let execution = taken(&sent).0.remove(0);
            starts(&role, &execution);
            settle(&stores).await;
            // Of what follows from the end only its own part came onto the disk.
            let seq = stores.jobs.last_seq(&id).unwrap() + 1;
            let mut row = stores.jobs.execution(&execution).unwrap().unwrap();
            let level = Level::Execution {
                id: execution.clone(),
                previous: Some(row.state),
                new: ExecutionState::Failed,
            };
            let failure = Some(Failure::new(code, "because"));
            row.advance(ExecutionEvent::Fail, Timestamp(2)).unwrap();
            let mut change = stores.jobs.change();
            change.put_execution(&row);
            let (topic, message, time) = (Topic::Execution, "because".to_owned(), Timestamp(2));
            change.put_history(&id, &HistoryEvent { seq, version: 1, level, topic, message, failure, time });
            stores.jobs.write(change).await.unwrap();
            (id, execution)
        });
        on_core(async {
            let (role, sent) = role(&stores);
            assert_eq!(role.recover().unwrap(), 1);
            if again {
                let next = asked_next(&sent).await;
                let row = stores.jobs.execution(&next[0]).unwrap().unwrap();
                assert_eq!((row.restarts, row.previous), (1, Some(execution)));
            } else {
                settle(&stores).await;
                let job = stores.jobs.get(&id).unwrap().unwrap();
                assert_eq!((job.state, job.message.as_str()), (JobState::Failed, "because"));
            }
        });
    }
}

#[test]
fn an_end_is_heard_although_the_beginning_was_forgotten() {
    let stores = open(&StoreSettings::memory()).unwrap();
    on_core(async {
        let (role, sent) = role(&stores);
        let id = role.submit(spec(1)).await.unwrap().job_id;
        let (asked, ..) = taken(&sent);
        // As after a power cut: compute answers from its record, the row was never more than New.
        role.on_report(done(&asked[0]));
        settle(&stores).await;
        assert_eq!(state(&stores, &id), JobState::Completed);
    });
}
