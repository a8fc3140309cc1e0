//! The API's routes for jobs, as clients of both generations use them.

use super::*;

#[test]
fn a_job_is_submitted_shown_and_listed() {
    let world = World::start();
    let body = format!(
        r#"{{"Namespace":"","Credential":null,"Job":{{"Name":"count","Type":"ops","ID":"j-x","Labels":{{"team":"field"}},"Tasks":[{TASK}]}}}}"#
    );
    // Names are not unique for 1.4.
    for method in ["PUT", "POST"] {
        let (answer, value) = world.say("v1.4.0", method, "/api/v1/orchestrator/jobs", &body);
        assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("application/json")), "{value}");
        assert_eq!(value["Warnings"], json!(["ID: set by the node, ignored"]));
        let id = value["JobID"].as_str().unwrap();
        assert!(value["EvaluationID"].as_str().unwrap().starts_with("v-"));
        // By id, by the beginning of it, by name; each generation with its own idea of Count.
        for asked in [id, &id[..10], "count"] {
            let path = format!("/api/v1/orchestrator/jobs/{asked}");
            assert_eq!(world.say("v1.9.3", "GET", &path, "").1["Job"]["Count"], 0, "{path}");
            let (_, old) = world.say("v1.4.0", "GET", &path, "");
            assert_eq!((&old["Job"]["ID"], &old["Job"]["Count"]), (&json!(id), &json!(1)), "{path}");
        }
    }
    let list = world.get("/api/v1/orchestrator/jobs?limit=10&labels=bacalhau_canary%21%3Dtrue");
    assert_eq!((list["Items"].as_array().unwrap().len(), &list["NextToken"]), (2, &json!("")));
}

#[test]
fn what_cannot_be_a_job_is_answered_with_all_its_problems() {
    let world = World::start();
    let put = |body: &str| world.say("v1.9.3", "PUT", "/api/v1/orchestrator/jobs", body);
    let (answer, value) = put(
        r#"{"Job":{"Type":"cron","Count":-1,"Tasks":[{"Engine":{"Type":"x"},"Resources":{"CPU":"y"}}]}}"#,
    );
    assert_eq!((answer.status, &value["Code"]), (400, &json!("ValidationError")));
    let message = value["Message"].as_str().unwrap();
    for wanted in ["Type: 'cron'", "Count: -1", "Tasks[0].Name is required", "Tasks[0].Resources.CPU: 'y'"] {
        assert!(message.lines().any(|line| line.starts_with(wanted)), "{wanted}: {message}");
    }
    let deep = "[".repeat(70) + &"]".repeat(70);
    for (body, wanted) in [
        ("", "there is no job"),
        ("null", "there is no job"),
        ("[1,2", "line 1, column 4"),
        (r#"{"Job":{},"Job":{}}"#, "given twice"),
        ("{\"Job\":{\"Name\":\"a\0b\"}}", "line 1"),
        (&deep, "64 deep"),
        (&format!("[{}1]", "1,".repeat(100_000)), "values that are taken"),
        ("Name: yaml\n", "one JSON value"),
    ] {
        let (answer, value) = put(body);
        assert_eq!(answer.status, 400);
        assert!(value.to_string().contains(wanted), "{wanted}: {value}");
    }
    assert_eq!(world.get("/api/v1/orchestrator/jobs")["Items"], json!([]));
    // 64 levels of JSON fit on a handler's stack.
    let params = "{\"a\":".repeat(58) + "1" + &"}".repeat(58);
    let job = format!(
        r#"{{"Job":{{"Type":"batch","Tasks":[{{"Name":"m","Engine":{{"Type":"x","Params":{params}}}}}]}}}}"#
    );
    assert_eq!(put(&job).0.status, 200);
}

#[test]
fn a_submission_may_be_large_and_nothing_else() {
    let world = World::start();
    let url = "x".repeat(9 << 20);
    let id = world.submit(&format!(r#""Name":"large","Meta":{{"data":"{url}"}},"#));
    let shown = world.get(&format!("/api/v1/orchestrator/jobs/{id}"));
    assert_eq!(shown["Job"]["Meta"]["data"].as_str().unwrap().len(), url.len());
    let (answer, _) = world.say("", "PUT", "/api/v1/orchestrator/jobs", &"x".repeat((10 << 20) + 1));
    assert_eq!(answer.status, 413);
    let (answer, _) = world.say("", "POST", "/api/v1/codling/gc", &"x".repeat(65_537));
    assert_eq!(answer.status, 413);
    // Pages end early when their items are large.
    let second = world.submit(&format!(r#""Meta":{{"data":"{}"}},"#, "y".repeat(2 << 20)));
    let page = world.get("/api/v1/orchestrator/jobs");
    assert_eq!(page["Items"].as_array().unwrap().len(), 1);
    let next =
        world.get(&format!("/api/v1/orchestrator/jobs?next_token={}", page["NextToken"].as_str().unwrap()));
    assert_eq!((&next["Items"][0]["ID"], &next["NextToken"]), (&json!(second.as_str()), &json!("")));
}

#[test]
fn lists_are_ordered_filtered_and_paged() {
    let world = World::start();
    let ids: Vec<_> = (0..5)
        .map(|n| {
            let label = if n % 2 == 0 { "even" } else { "odd" };
            world
                .submit(&format!(r#""Name":"n{n}","Namespace":"s{}","Labels":{{"kind":"{label}"}},"#, n / 3))
                .to_string()
        })
        .collect();
    let listed = |query: &str| -> Vec<String> {
        let (mut all, mut path) = (Vec::new(), format!("/api/v1/orchestrator/jobs?{query}"));
        loop {
            let page = world.get(&path);
            all.extend(
                page["Items"].as_array().unwrap().iter().map(|job| job["Name"].as_str().unwrap().to_owned()),
            );
            match page["NextToken"].as_str().unwrap() {
                "" => return all,
                token => path = format!("/api/v1/orchestrator/jobs?next_token={token}&{query}"),
            }
        }
    };
    assert_eq!(listed(""), ["n0", "n1", "n2", "n3", "n4"]);
    assert_eq!(listed("limit=2"), ["n0", "n1", "n2", "n3", "n4"]);
    assert_eq!(listed("limit=2&reverse=True&order_by=&namespace="), ["n4", "n3", "n2", "n1", "n0"]);
    assert_eq!(listed("labels=kind%3Deven&limit=1"), ["n0", "n2", "n4"]);
    assert_eq!(listed("labels=kind%20in%20(odd)&labels=!none"), ["n1", "n3"]);
    assert_eq!(listed("namespace=s1"), ["n3", "n4"]);
    assert_eq!(listed("namespace=*&order_by=modified_at&reverse=true"), ["n4", "n3", "n2", "n1", "n0"]);
    assert_eq!(world.get("/api/v1/orchestrator/jobs?limit=5")["NextToken"], "");
    for bad in ["order_by=colour", "labels=a%20b", "limit=x", "next_token=x", "reverse=maybe", "labels=%zz"] {
        assert_eq!(world.status("GET", &format!("/api/v1/orchestrator/jobs?{bad}"), ""), 400, "{bad}");
    }
    // A namespace that a name is looked up in.
    assert_eq!(world.status("GET", "/api/v1/orchestrator/jobs/n0?namespace=s1", ""), 404);
    assert_eq!(world.status("GET", "/api/v1/orchestrator/jobs/n0?namespace=s0", ""), 200);
    assert_eq!(world.status("GET", &format!("/api/v1/orchestrator/jobs/{}", ids[0]), ""), 200);
}

#[test]
fn names_may_repeat_and_have_any_characters() {
    let world = World::start();
    let job = format!(r#"{{"Job":{{"Type":"batch","Name":"a/b c","Tasks":[{TASK}]}}}}"#);
    let submit = || world.say("v1.4.0", "PUT", "/api/v1/orchestrator/jobs", &job).1["JobID"].clone();
    let (first, second) = (submit(), submit());
    assert_ne!(first, second);
    // The newest of that name.
    let shown = world.get("/api/v1/orchestrator/jobs/a%2Fb%20c");
    assert_eq!(shown["Job"]["ID"], second);
    assert_eq!(world.status("GET", "/api/v1/orchestrator/jobs/nothing", ""), 404);
    assert_eq!(world.status("GET", "/api/v1/orchestrator/jobs/%ff", ""), 400);
    let mut prefixes = std::collections::HashMap::new();
    let mut ambiguous = None;
    // Three characters of an id collide soon enough.
    while ambiguous.is_none() {
        let id = world.submit("").to_string();
        let prefix = id[..5].to_owned();
        ambiguous = prefixes.insert(prefix.clone(), id).map(|_| prefix);
    }
    let (answer, value) =
        world.say("v1.9.3", "GET", &format!("/api/v1/orchestrator/jobs/{}", ambiguous.unwrap()), "");
    assert_eq!((answer.status, &value["Code"]), (409, &json!("MultipleJobsFound")), "{value}");
}

#[test]
fn describing_includes_what_is_asked_for() {
    let world = World::start();
    let job = world.submit("");
    let execution = world.execution(&job, ExecutionState::Completed);
    let plain = world.get(&format!("/api/v1/orchestrator/jobs/{job}?include=&limit=10"));
    assert_eq!((plain.get("History"), plain.get("Executions")), (None, None));
    let full = world.get(&format!("/api/v1/orchestrator/jobs/{job}?include=executions%2Chistory,nonsense"));
    assert_eq!(full["History"]["Items"][0]["Event"]["Topic"], "Submission");
    assert_eq!(full["Executions"]["Items"][0]["ID"], execution.as_str());
    assert_eq!((&full["History"]["NextToken"], &full["Executions"]["NextToken"]), (&json!(""), &json!("")));
}

#[test]
fn executions_have_numbers_for_states_by_generation() {
    let world = World::start();
    let job = world.submit("");
    let first = world.execution(&job, ExecutionState::Completed);
    let second = world.execution(&job, ExecutionState::BidAccepted);
    // The compute role is ahead.
    let kept = world.app.executions.get(&second).unwrap().unwrap();
    world.keep(&ExecutionRecord { state: ExecutionState::Publishing, ..kept });
    let path = format!("/api/v1/orchestrator/jobs/{job}/executions");
    let states = |version: &str| -> Vec<Value> {
        let (_, page) = world.say(version, "GET", &path, "");
        page["Items"].as_array().unwrap().iter().map(|e| e["ComputeState"]["StateType"].clone()).collect()
    };
    assert_eq!(states("v1.4.0"), [json!(7), json!(5)]);
    assert_eq!(states(""), [json!(7), json!(5)]);
    assert_eq!(states("v1.9.3"), [json!(9), json!(7)]);
    let page = world.get(&path);
    assert_eq!(page["Items"][0]["RunOutput"]["Stdout"], "hi\n");
    assert_eq!(page["Items"][0]["AllocatedResources"]["Tasks"]["main"]["CPU"], 0.5);
    assert_eq!(
        (&page["Items"][0]["NodeID"], &page["Items"][1]["RunOutput"]),
        (&json!("n-edge-01"), &Value::Null)
    );
    // What the Python client sends.
    let page = world.get(&format!("{path}?namespace=&limit=1&next_token=&reverse=True&order_by=modify_time"));
    assert_eq!(page["Items"][0]["ID"], second.as_str());
    let page = world.get(&format!("{path}?next_token={}", page["NextToken"].as_str().unwrap()));
    assert_eq!((&page["Items"][0]["ID"], &page["NextToken"]), (&json!(first.as_str()), &json!("")));
    assert_eq!(world.status("GET", &format!("{path}?order_by=colour"), ""), 400);
}

#[test]
fn history_has_a_next_page_until_the_job_has_ended() {
    let world = World::start();
    let job = world.submit("");
    let execution = world.execution(&job, ExecutionState::Running);
    let path = format!("/api/v1/orchestrator/jobs/{job}/history");
    let moved = |previous, new| Level::Execution { id: execution.clone(), previous: Some(previous), new };
    let page = world.get(&format!("{path}?event_type=all&limit=10"));
    assert_eq!(page["Items"].as_array().unwrap().len(), 1);
    let token = page["NextToken"].as_str().unwrap().to_owned();
    assert!(!token.is_empty(), "the job has not ended");
    // Nothing new: the same place again.
    let page = world.get(&format!("{path}?event_type=all&limit=10&next_token={token}"));
    assert_eq!((&page["Items"], page["NextToken"].as_str()), (&json!([]), Some(token.as_str())));
    world.note(&job, 2, moved(ExecutionState::BidAccepted, ExecutionState::Running), None);
    let failure = Failure::new(FailureCode::Trap, "unreachable executed").hint("look at stderr");
    world.note(&job, 3, moved(ExecutionState::Running, ExecutionState::Failed), Some(failure));
    let ended = Level::Job { previous: Some(JobState::Running), new: JobState::Failed };
    world.note(&job, 4, ended, None);
    let page = world.get(&format!("{path}?limit=10&next_token={token}"));
    assert_eq!(page["Items"].as_array().unwrap().len(), 3);
    assert_ne!(page["NextToken"], "", "the record does not say that it has ended");
    world.advance(&job, JobState::Failed);
    assert_eq!(
        world.get(&format!("{path}?limit=10&next_token={}", page["NextToken"].as_str().unwrap()))["NextToken"],
        ""
    );
    let page = world.get(&format!("{path}?limit=2"));
    let rest = world.get(&format!("{path}?next_token={}", page["NextToken"].as_str().unwrap()));
    assert_eq!((rest["Items"][0]["SeqNum"].as_u64(), &rest["NextToken"]), (Some(3), &json!("")));

    let only = |query: &str| -> Vec<u64> {
        let (_, page) = world.say("", "GET", &format!("{path}?{query}"), "");
        page["Items"].as_array().unwrap().iter().map(|event| event["SeqNum"].as_u64().unwrap()).collect()
    };
    assert_eq!(only("event_type=execution&execution_id=&node_id="), [2, 3]);
    assert_eq!(only("event_type=job"), [1, 4]);
    assert_eq!(only(&format!("execution_id={}", &execution.as_str()[..8])), [2, 3]);
    assert_eq!(only("since=4000000000"), [0; 0]);
    assert_eq!(only("since=1&order_by=whatever&reverse=true"), [1, 2, 3, 4]);
    let (_, old) = world.say("v1.4.0", "GET", &format!("{path}?event_type=execution"), "");
    assert_eq!(old["Items"][1]["ExecutionState"], json!({"Previous": 5, "New": 8}));
    assert_eq!(old["Items"][1]["Event"]["Details"]["FailsExecution"], "true");
    for bad in ["event_type=x", "since=-1", "since=soon", "next_token=YQ"] {
        assert_eq!(world.status("GET", &format!("{path}?{bad}"), ""), 400, "{bad}");
    }
}

#[test]
fn the_history_of_one_execution_ends_with_it() {
    let world = World::start();
    let job = world.submit("");
    let running = world.execution(&job, ExecutionState::Running);
    let done = world.execution(&job, ExecutionState::Completed);
    let path = format!("/api/v1/orchestrator/jobs/{job}/history?execution_id=");
    assert_ne!(world.get(&format!("{path}{running}"))["NextToken"], "");
    assert_eq!(world.get(&format!("{path}{done}"))["NextToken"], "");
    assert_ne!(world.get(&format!("{path}e-unknown"))["NextToken"], "");
}

#[test]
fn stopping_takes_reasons_from_all_clients() {
    let world = World::start();
    let stop = |id: &JobId, query: &str, body: &str| {
        world.say("", "DELETE", &format!("/api/v1/orchestrator/jobs/{id}{query}"), body)
    };
    let reasons = [
        (
            "",
            r#"{"Namespace":"","Credential":null,"reason":"Stopped at user request"}"#,
            "Stopped at user request",
        ),
        ("?reason=None", "{}", "stopped by a user"),
        ("?reason=enough%20of%20it", "{}", "enough of it"),
        ("", "", "stopped by a user"),
    ];
    for (query, body, wanted) in reasons {
        let job = world.submit("");
        let (answer, value) = stop(&job, query, body);
        assert!(answer.status == 200 && value["EvaluationID"].as_str().unwrap().starts_with("v-"), "{value}");
        assert_eq!(world.stopped.lock().unwrap().last().unwrap(), &(job.clone(), wanted.to_owned()));
        // Again: nothing to stop, and no error.
        assert_eq!(stop(&job, "", "{}").1, json!({"EvaluationID": ""}));
    }
    let job = world.submit("");
    world.advance(&job, JobState::Completed);
    let (answer, value) = stop(&job, "", "{}");
    assert_eq!((answer.status, &value["Code"]), (409, &json!("ResourceInUse")));
    assert_eq!(world.status("DELETE", "/api/v1/orchestrator/jobs/j-nothing", "{}"), 404);
    assert_eq!(world.status("DELETE", &format!("/api/v1/orchestrator/jobs/{job}"), "{"), 400);
}

#[test]
fn what_the_core_says_is_passed_on() {
    let world = World::start();
    let job = format!(r#"{{"Job":{{"Type":"batch","Tasks":[{TASK}]}}}}"#);
    for (error, status, code) in [
        (NodeError::TooMany("too many jobs".into()), 429, "ResourceExhausted"),
        (NodeError::Unavailable("the node is stopping".into()), 503, "ServiceUnavailable"),
        (NodeError::Store(StoreError::Busy), 503, "ServiceUnavailable"),
        (NodeError::Store(StoreError::Closed), 503, "ServiceUnavailable"),
        (NodeError::Invalid(Problems(vec!["no".into()])), 400, "ValidationError"),
        (NodeError::Internal("a bug".into()), 500, "InternalError"),
    ] {
        *world.refuse.lock().unwrap() = Some(error);
        let (answer, value) = world.say("v1.9.3", "PUT", "/api/v1/orchestrator/jobs", &job);
        assert_eq!((answer.status, value["Code"].as_str()), (status, Some(code)), "{value}");
    }
}

#[test]
fn versions_have_their_own_bodies_histories_and_executions() {
    let world = World::start();
    let jobs = "/api/v1/orchestrator/jobs";
    let body = |count: u32, more: &str| {
        format!(
            r#"{{"Job":{{"Type":"batch","Name":"web","Namespace":"ns","Count":{count},"Tasks":[{TASK}]}}{more}}}"#
        )
    };
    let put = |body: &str| world.say("v1.9.3", "PUT", jobs, body);
    let id = put(&body(1, "")).1["JobID"].clone();
    let job: JobId = id.as_str().unwrap().parse().unwrap();
    world.execution(&job, ExecutionState::Completed);
    // Not Pending: it may be run again.
    assert_eq!(world.status("PUT", &format!("{jobs}/web/rerun"), "{}"), 409);
    world.advance(&job, JobState::Completed);
    let (answer, same) = put(&body(1, ""));
    assert_eq!((answer.status, &same["Code"]), (400, &json!("BadRequest")), "{same}");
    assert!(same["Hint"].as_str().unwrap().contains("Force"), "{same}");
    assert_eq!(put(&body(1, r#","Force":true"#)).1["JobID"], id);
    assert_eq!(put(&body(3, "")).1["JobID"], id);
    // Another namespace, and no name at all, are jobs of their own.
    assert_ne!(put(&body(1, "").replace("\"ns\"", "\"other\"")).1["JobID"], id);
    assert_ne!(world.submit(""), world.submit(""));
    let versions = world.get(&format!("{jobs}/web/versions?namespace=ns"));
    let numbers: Vec<_> =
        versions["Items"].as_array().unwrap().iter().map(|v| (&v["Version"], &v["Count"])).collect();
    assert_eq!(numbers, [(&json!(1), &json!(1)), (&json!(2), &json!(1)), (&json!(3), &json!(3))]);
    let count = |query: &str| world.get(&format!("{jobs}/{job}?{query}"))["Job"]["Count"].clone();
    assert_eq!((count("job_version=2"), count("job_version=0"), count("")), (json!(1), json!(3), json!(3)));
    for path in ["", "/history", "/executions", "/results"] {
        let path = format!("{jobs}/{job}{path}");
        assert_eq!(world.status("GET", &format!("{path}?job_version=4"), ""), 404, "{path}");
        assert_eq!(world.status("GET", &format!("{path}?job_version=x"), ""), 400, "{path}");
    }
    // The first version is over with its executions; the present one is not.
    let history = |query: &str| {
        let page = world.get(&format!("{jobs}/{job}/history?{query}"));
        (page["Items"].as_array().unwrap().len(), page["NextToken"] == "")
    };
    assert_eq!(
        (history("job_version=1"), history(""), history("all_job_versions=true").0),
        ((1, true), (0, false), 1)
    );
    let executions = |query: &str| {
        world.get(&format!("{jobs}/{job}/executions?{query}"))["Items"].as_array().unwrap().len()
    };
    assert_eq!((executions("job_version=1"), executions(""), executions("all_job_versions=1")), (1, 0, 1));
    world.advance(&job, JobState::Failed);
    let (_, again) =
        world.say("v1.9.3", "PUT", &format!("{jobs}/{job}/rerun"), r#"{"JobVersion":1,"Reason":"x"}"#);
    assert_eq!((&again["JobID"], &again["JobVersion"], &again["Warnings"]), (&id, &json!(4), &json!([])));
    assert_eq!(count(""), 1);
    for (body, status) in
        [(r#"{"JobVersion":9}"#, 404), (r#"{"JobVersion":-1}"#, 400), (r#"{"JobVersion":"1"}"#, 400)]
    {
        assert_eq!(world.status("PUT", &format!("{jobs}/{job}/rerun"), body), status, "{body}");
    }
    // What an update would change.
    let diff = |body: &str| world.say("v1.9.3", "PUT", &format!("{jobs}/diff"), body);
    assert_eq!(diff(&body(1, "")).1["Diff"], "");
    let text = diff(&body(7, "")).1["Diff"].clone();
    assert!(text.as_str().unwrap().contains("- Count: 1\n+ Count: 7\n"), "{text}");
    assert_eq!(diff(&body(1, "").replace("web", "nothing")).0.status, 404);
    assert_eq!(diff(&body(1, "").replace("\"Name\":\"web\",", "")).0.status, 400);
}
