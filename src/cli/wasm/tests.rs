//! `codling wasm run` against a scripted node.

use serde_json::{Value, json};

use crate::cli::testing::{Captured, Reply, Scratch, Server};

const ID: &str = "j-11111111-2222-3333-4444-555555555555";
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

fn server() -> Server {
    Server::start(|_| Reply::json(format!(r#"{{"JobID":"{ID}","EvaluationID":"v-1","Warnings":null}}"#)))
}

fn run(server: &Server, args: &[&str]) -> Captured {
    server.run(&[&["wasm", "run"], args].concat())
}

fn submitted(args: &[&str]) -> Value {
    let server = server();
    let done = run(&server, args).expect(0);
    assert_eq!(done.stdout(), format!("{ID}\n"));
    let [request] = &server.requests()[..] else { panic!() };
    assert_eq!(request.line, "PUT /api/v1/orchestrator/jobs HTTP/1.1");
    request.json()["Job"].clone()
}

#[test]
fn a_file_is_sent_within_the_job() {
    let scratch = Scratch::new();
    let path = scratch.path("prog.wasm");
    std::fs::write(&path, MODULE).unwrap();
    let job = submitted(&[&path, "one", "two"]);
    assert_eq!((&job["Type"], &job["Count"]), (&json!("batch"), &json!(1)));
    let task = &job["Tasks"][0];
    let params = &task["Engine"]["Params"];
    assert_eq!(
        params["EntryModule"]["Source"],
        json!({"Type": "inline", "Params": {"URL": "data:application/wasm;base64,AGFzbQEAAAA="}})
    );
    assert_eq!((&params["Entrypoint"], &params["Parameters"]), (&json!("_start"), &json!(["one", "two"])));
    // As Bacalhau: nothing is published unless it is asked for.
    assert_eq!(task["Publisher"], json!({"Type": ""}));

    std::fs::write(&path, [MODULE, &[0; 1000]].concat()).unwrap();
    let url = &submitted(&[&path])["Tasks"][0]["Engine"]["Params"]["EntryModule"]["Source"]["Params"]["URL"];
    let url = url.as_str().unwrap();
    assert!(url.starts_with("data:application/gzip;base64,") && url.len() < 400, "{url}");
}

#[test]
fn flags_become_the_job() {
    let scratch = Scratch::new();
    let data = scratch.path("data.csv");
    std::fs::write(&data, "a,b\n").unwrap();
    let job = submitted(&[
        "http://files/prog.wasm",
        "--entry-point",
        "main",
        "-U",
        "http://files/lib.wasm",
        "-e",
        "A=1,B=2",
        "--env",
        "C=x,y",
        "-i",
        &format!("{data}:/in/d"),
        "-i",
        "file:///srv/x",
        "-o",
        "out:/out",
        "-p",
        "local",
        "--cpu",
        "250m",
        "--memory",
        "64Mi",
        "--disk",
        "1Mi",
        "--timeout",
        "90",
        "--queue-timeout",
        "1h",
        "--name",
        "n",
        "-l",
        "team=field",
        "--label",
        "x=y",
        "-s",
        "zone=a,gpu",
        "--count",
        "2",
        "--priority",
        "-3",
        "--",
        "--flag",
    ]);
    let task = &job["Tasks"][0];
    let params = &task["Engine"]["Params"];
    assert_eq!(
        params["EntryModule"]["Source"],
        json!({"Type": "urlDownload", "Params": {"URL": "http://files/prog.wasm"}})
    );
    assert_eq!(params["Entrypoint"], "main");
    assert_eq!(params["Parameters"], json!(["--flag"]));
    assert_eq!(params["ImportModules"][0]["Alias"], "http://files/lib.wasm");
    // Each generation reads its own place.
    let env = json!({"A": "1", "B": "2", "C": "x,y"});
    assert_eq!((&params["EnvironmentVariables"], &task["Env"]), (&env, &env));
    assert_eq!(task["InputSources"][0]["Target"], "/in/d");
    assert_eq!(
        task["InputSources"][0]["Source"]["Params"]["URL"],
        "data:application/octet-stream;base64,YSxiCg=="
    );
    assert_eq!(task["InputSources"][1]["Target"], "/inputs");
    assert_eq!(task["ResultPaths"], json!([{"Name": "out", "Path": "/out"}]));
    assert_eq!(task["Publisher"], json!({"Type": "local"}));
    assert_eq!(task["Resources"], json!({"CPU": "250m", "Memory": "64Mi", "Disk": "1Mi"}));
    assert_eq!(task["Timeouts"], json!({"ExecutionTimeout": 90, "QueueTimeout": 3600}));
    assert_eq!(job["Labels"], json!({"team": "field", "x": "y"}));
    assert_eq!(
        job["Constraints"],
        json!([{"Key": "zone", "Operator": "=", "Values": ["a"]}, {"Key": "gpu", "Operator": "exists", "Values": []}])
    );
    assert_eq!((&job["Name"], &job["Count"], &job["Priority"]), (&json!("n"), &json!(2), &json!(-3)));
    let everywhere = submitted(&["http://files/prog.wasm", "--target", "all"]);
    assert_eq!((&everywhere["Type"], &everywhere["Count"]), (&json!("ops"), &json!(0)));
}

#[test]
fn a_dry_run_prints_a_job_file_and_asks_nobody() {
    let server = server();
    let yaml = run(&server, &["--dry-run", "http://files/prog.wasm"]).expect(0).stdout();
    assert!(yaml.contains("EntryModule:"), "{yaml}");
    let json = run(&server, &["--dry-run", "--output", "json", "http://files/prog.wasm"]).expect(0).stdout();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["Tasks"][0]["Name"], "main");
    assert!(server.requests().is_empty());
    // What it prints is a job that 'job run' takes.
    let again = server.run_with_stdin(&["job", "run", "-"], yaml.as_bytes()).expect(0);
    assert_eq!(again.stdout(), format!("{ID}\n"));
}

#[test]
fn what_cannot_be_a_job_never_reaches_the_node() {
    let server = server();
    let scratch = Scratch::new();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(scratch.path(name), bytes).unwrap();
        scratch.path(name)
    };
    let (module, text) = (write("m.wasm", MODULE), write("m.wat", b"(module)"));
    let component = write("c.wasm", b"\0asm\x0d\0\x01\0");
    let noise = write("large", &[1; 8 << 20]);
    let missing = scratch.path("missing.wasm");
    let dir = scratch.0.to_str().unwrap();
    let large = format!("{noise}:/in");
    for (args, exit, said) in [
        (&[missing.as_str()][..], 66, "cannot read"),
        (&[dir], 65, "is not a file"),
        (&[&text], 65, "it is the text form"),
        (&[&component], 65, "wasm32-wasip1"),
        (&[&noise], 65, "does not begin with"),
        (&[&module, "-i", &large], 65, "too large to be sent within a job"),
        (&["ftp://x/m.wasm"], 64, "'ftp' is not one of"),
        (&[&module, "-e", "A"], 64, "--env 'A': give NAME=VALUE"),
        (&[&module, "-p", "ftp"], 64, "--publisher 'ftp'"),
        (&[&module, "-o", "out:/out"], 64, "add -p local"),
        (&[&module, "-o", "out", "-p", "local"], 64, "NAME:PATH"),
        (&[&module, "-s", "a in b"], 64, "--constraints"),
        (&[&module, "--cpu", "2 cores"], 65, "Resources.CPU"),
        (&[&module, "--count", "5000"], 65, "Count"),
        (&[&module, "--timeout", "1.5s"], 64, "whole seconds"),
        (&[&module, "--target", "all", "--count", "2"], 65, "once on every node"),
        (&[&module, "--wait-timeout", "5s"], 64, "needs --wait"),
        (&[], 64, "MODULE"),
    ] {
        let done = run(&server, args).expect(exit);
        assert!(done.stderr().contains(said), "{args:?}: {}", done.stderr());
        assert_eq!(done.stdout(), "");
    }
    assert!(server.requests().is_empty());
}
