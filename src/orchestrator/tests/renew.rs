//! Later versions of a job: updates and further runs.

use super::super::VERSIONS_MAX;
use super::super::handle::{Renewal, Why};
use super::*;

fn update(id: &JobId, spec: JobSpec, force: bool) -> Renewal {
    Renewal { id: id.clone(), spec, why: Why::Update { force } }
}

fn rerun(id: &JobId, spec: JobSpec) -> Renewal {
    Renewal { id: id.clone(), spec, why: Why::Rerun { reason: "once more".into() } }
}

#[test]
fn an_update_stops_what_runs_and_begins_the_next_version() {
    let stores = open(&StoreSettings::memory()).unwrap();
    on_core(async {
        let (role, sent) = role(&stores);
        let id = role.submit(service(2)).await.unwrap().job_id;
        let (old, ..) = taken(&sent);
        old.iter().for_each(|e| starts(&role, e));
        let same = role.renew(update(&id, service(2), false)).await;
        assert!(matches!(same, Err(CoreError::Unchanged { version: 1, .. })));
        taken(&sent);
        let mut labelled = service(1);
        labelled.labels.insert("team".into(), "field".into());
        let taken_up = role.renew(update(&id, labelled.clone(), false)).await.unwrap();
        assert_eq!((taken_up.job_id.clone(), taken_up.version), (id.clone(), 2));
        let (new, _, cancelled) = taken(&sent);
        assert_eq!((new.len(), cancelled), (1, old.clone()));
        starts(&role, &new[0]);
        // What becomes of the old ones does not matter: one ended by itself, one was stopped.
        role.on_report(done(&old[0]));
        role.on_report(fails(&old[1], FailureCode::Cancelled));
        settle(&stores).await;
        assert_eq!(taken(&sent).0, [], "nothing of the old version is run again");
        let record = stores.jobs.get(&id).unwrap().unwrap();
        assert_eq!((record.state, record.version), (JobState::Running, 2));
        let earlier = stores.jobs.versions(&id).unwrap();
        // Each is listed by its own labels.
        assert_eq!(
            (record.head.unwrap().labels, earlier[0].head.as_ref().unwrap().labels.len()),
            (labelled.labels, 0)
        );
        assert_eq!((earlier[0].version, earlier[0].state), (1, JobState::Stopped));
        let history = stores.jobs.history(&id, 0, usize::MAX).unwrap();
        assert!(history.iter().any(|e| e.version == 2 && e.message == "job updated to version 2"));
        assert!(
            history.iter().rev().take(2).all(|e| e.version == 1),
            "the ends of the old ones are the old version's"
        );
    });
    // A restart asks for the present version only.
    on_core(async {
        let (role, sent) = role(&stores);
        role.recover().unwrap();
        assert_eq!(taken(&sent).0.len(), 1);
        role.renew(update(&id_of(&stores), service(1), true)).await.unwrap();
    });
    on_core(async {
        let (role, sent) = role(&stores);
        role.recover().unwrap();
        let (asked, _, cancelled) = taken(&sent);
        assert_eq!((asked.len(), cancelled.len()), (1, 1), "the one of the old version is stopped");
    });
}

/// The only job.
fn id_of(stores: &Stores) -> JobId {
    stores.jobs.active().unwrap().remove(0).id
}

#[test]
fn a_job_that_is_over_runs_again_and_versions_have_a_bound() {
    let stores = open(&StoreSettings::memory()).unwrap();
    on_core(async {
        let (role, sent) = role(&stores);
        let id = role.submit(spec(2)).await.unwrap().job_id;
        assert!(
            matches!(role.renew(rerun(&id, spec(2))).await, Err(CoreError::Conflict(_))),
            "not begun yet"
        );
        for version in 2..=40 {
            let (asked, ..) = taken(&sent);
            assert_eq!(asked.len(), 2);
            asked.iter().for_each(|e| starts(&role, e));
            asked.iter().for_each(|e| role.on_report(done(e)));
            taken(&sent);
            let again = role.renew(rerun(&id, spec(2))).await.unwrap();
            assert_eq!(again.version, version);
            assert_eq!(stores.jobs.get(&id).unwrap().unwrap().state, JobState::Pending);
        }
        settle(&stores).await;
        let versions = stores.jobs.versions(&id).unwrap();
        assert_eq!(versions.len() as u64 + 1, VERSIONS_MAX);
        assert!(versions.iter().all(|old| old.state == JobState::Completed));
        assert_eq!(stores.jobs.executions(&id).unwrap().len() as u64, 2 * VERSIONS_MAX);
        assert!(stores.jobs.body(&versions[0].digest).unwrap().is_some());
        role.stop(&id, "enough").await.unwrap();
        assert!(matches!(role.renew(rerun(&JobId::random(), spec(1))).await, Err(CoreError::NotFound(_))));
    });
}
