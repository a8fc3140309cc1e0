//! The node's own endpoints.

use super::*;

#[test]
fn results_are_listed_pinned_and_removed() {
    let world = World::start();
    let job = world.submit("");
    let ids: Vec<_> = (0..3)
        .map(|_| {
            let id = world.execution(&job, ExecutionState::Completed);
            world.publish(&job, &id, 1000);
            id
        })
        .collect();
    let list = world.get("/api/v1/codling/results");
    let listed: Vec<_> =
        list["Items"].as_array().unwrap().iter().map(|row| row["ExecutionID"].clone()).collect();
    assert_eq!(listed, ids.iter().rev().map(|id| json!(id.as_str())).collect::<Vec<_>>());
    let url = format!("http://board.local:{}/{}.tar.gz", world.results.port(), ids[2]);
    assert_eq!(list["Items"][0]["URL"], url);
    let page = world.get("/api/v1/codling/results?limit=2");
    let next =
        world.get(&format!("/api/v1/codling/results?next_token={}", page["NextToken"].as_str().unwrap()));
    assert_eq!((&next["Items"][0]["ExecutionID"], &next["NextToken"]), (&json!(ids[0].as_str()), &json!("")));

    let path = format!("/api/v1/codling/results/{}", ids[0]);
    let pin = |body: &str| world.say("", "PUT", &format!("{path}/pin"), body);
    assert_eq!(pin("{}").1["Pinned"], true);
    assert_eq!(world.status("DELETE", &path, "{}"), 409);
    assert_eq!(pin(r#"{"Seconds":3600}"#).1["PinnedUntil"].as_str().unwrap().len(), 30);
    assert_eq!(pin(r#"{"Seconds":18446744073709551615}"#).1.get("PinnedUntil"), None);
    assert_eq!(pin(r#"{"Seconds":"soon"}"#).0.status, 400);
    world.clock.trust(false);
    assert_eq!((pin("{}").0.status, pin(r#"{"Seconds":5}"#).0.status), (200, 503));
    world.clock.trust(true);
    let (_, row) = world.say("", "DELETE", &format!("{path}/pin"), "");
    assert_eq!(row["Pinned"], false);
    // The beginning of an id will do.
    let (answer, gone) = world.say("", "DELETE", &path[..path.len() - 10], "{}");
    assert_eq!((answer.status, &gone["Reason"]), (200, &json!("removed")), "{gone}");
    assert_eq!(world.get(&path)["Deleted"]["Reason"], "removed");
    assert_eq!(world.status("DELETE", &path, "{}"), 410);
    assert_eq!(pin("{}").0.status, 410);
    let never = format!("/api/v1/codling/results/{}", ExecutionId::random());
    for (method, path) in [("GET", never.clone()), ("DELETE", never.clone()), ("PUT", format!("{never}/pin"))]
    {
        assert_eq!(world.status(method, &path, "{}"), 404, "{path}");
    }
    assert_eq!(world.status("DELETE", "/api/v1/codling/results/e-zzz", "{}"), 404);
    assert_eq!(world.status("DELETE", "/api/v1/codling/results/e-", "{}"), 409);
}

#[test]
fn df_and_gc_say_where_the_room_is() {
    let world = World::start();
    let job = world.submit("");
    let id = world.execution(&job, ExecutionState::Completed);
    let entry = world.publish(&job, &id, 10_000);
    let df = world.get("/api/v1/codling/df");
    assert_eq!(
        (df["Quota"].as_u64(), df["Results"].as_u64()),
        (Some(64 << 20), Some(entry.size.on_disk().0))
    );
    assert_eq!((df["DiskTotal"].as_u64(), df["DiskFree"].as_u64()), (Some(1 << 30), Some(1 << 30)));
    assert_eq!(df["Next"][0]["ExecutionID"], id.as_str());
    let gc = |body: &str| world.say("", "POST", "/api/v1/codling/gc", body);
    assert_eq!(gc(r#"{"DryRun":true}"#).1, json!({"Deleted": [], "Jobs": []}));
    assert_eq!(gc("").1, json!({"Deleted": [], "Jobs": []}));
    assert_eq!(world.get("/api/v1/codling/df")["Deleted"], json!([]));
    world.say("", "DELETE", &format!("/api/v1/codling/results/{id}"), "");
    let counted = json!([{"Reason": "removed", "Message": "removed by a user", "Count": 1, "Bytes": entry.size.on_disk()}]);
    assert_eq!(world.get("/api/v1/codling/df")["Deleted"], counted);
    assert_eq!(gc("[").0.status, 400);
}
