//! What keeps the node from taking work, and how it is told.

use super::*;
use crate::sys::Condition;

fn readyz(world: &World) -> (u16, Value) {
    let (answer, value) = world.say("", "GET", "/readyz", "");
    (answer.status, value)
}

fn verbose(world: &World) -> (u16, String) {
    let answer = Client::connect(world.api).ask("GET /readyz?verbose HTTP/1.1\r\nHost: a\r\n\r\n");
    (answer.status, answer.text().to_owned())
}

#[test]
fn each_condition_is_named_while_it_holds() {
    let world = World::start();
    assert_eq!(readyz(&world), (200, json!({"Status": "OK"})));
    let (status, text) = verbose(&world);
    assert_eq!((status, text.lines().last()), (200, Some("readyz check passed")));
    for condition in Condition::ALL {
        assert!(text.contains(&format!("[+]{} ok\n", condition.as_str())), "{text}");
        world.app.health.raise(condition, "a reason\nof two lines");
        let (status, value) = readyz(&world);
        assert_eq!((status, &value["Code"]), (503, &json!("ServiceUnavailable")));
        assert_eq!(value["Details"][condition.as_str()], "a reason\nof two lines");
        assert!(value["Message"].as_str().unwrap().contains(condition.as_str()), "{value}");
        let (status, text) = verbose(&world);
        assert_eq!((status, text.lines().last()), (503, Some("readyz check failed")));
        assert!(
            text.contains(&format!("[-]{} failed: a reason of two lines\n", condition.as_str())),
            "{text}"
        );
        assert_eq!(world.status("GET", "/livez", ""), 200, "not ready, and alive");
        world.app.health.clear(condition);
        assert_eq!(readyz(&world).0, 200);
    }
}

#[test]
fn the_store_and_the_core_are_asked_each_time() {
    let world = World::start();
    let silent = StoreError::Silent { after: Duration::from_secs(5) };
    for (error, name) in
        [(NodeError::Store(silent), "store"), (NodeError::Unavailable("the node is stopping".into()), "core")]
    {
        *world.refuse.lock().unwrap() = Some(error);
        let (status, value) = readyz(&world);
        assert_eq!((status, value["Details"].as_object().unwrap().len()), (503, 1));
        assert!(value["Details"][name].is_string(), "{value}");
        assert_eq!(readyz(&world).0, 200);
    }
}

#[test]
fn a_node_whose_room_is_held_by_pins_is_not_ready() {
    let world = World::start();
    let fill = Bytes::mib(64).minus(crate::results::ROOM_LEAST);
    let id = ExecutionId::random();
    let lease = world.app.shelf.reserve_scratch(&id, fill).unwrap();
    assert_eq!(readyz(&world).0, 200, "the least that an execution can ask for is there");
    let job = world.submit("");
    let execution = world.execution(&job, ExecutionState::Completed);
    world.publish(&job, &execution, 10_000);
    assert_eq!(readyz(&world).0, 200, "an old result makes way");
    world.app.shelf.pin(&execution, crate::model::Pin { until: None }).unwrap();
    let (status, value) = readyz(&world);
    assert_eq!(status, 503);
    assert!(value["Details"]["quota"].as_str().unwrap().contains("64"), "{value}");
    drop(lease);
    assert_eq!(readyz(&world).0, 200);
}
