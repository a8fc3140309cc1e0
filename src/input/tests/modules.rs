use std::io::Read as _;

use super::server::Server;
use super::*;
use crate::input::Modules;
use crate::model::{ModuleRef, WasmSpec};

fn spec(module: ModuleRef, imports: Vec<ModuleRef>) -> WasmSpec {
    WasmSpec {
        module,
        imports,
        entrypoint: "_start".into(),
        parameters: Vec::new(),
        env: std::collections::BTreeMap::new(),
    }
}

fn inline(alias: &str, target: &str, text: &str) -> InputSource {
    let Value::Object(params) = json!({"URL": format!("data:,{text}")}) else { panic!() };
    InputSource {
        source: Source(SpecConfig { kind: "inline".into(), params }),
        alias: alias.into(),
        target: target.into(),
    }
}

impl Bench {
    fn modules(&self, spec: &WasmSpec, inputs: &[InputSource], mounts: &[Mount]) -> Result<Modules, Failure> {
        let dir = self.dir.path().join("modules");
        crate::input::modules(spec, inputs, mounts, &dir, &self.policy, &self.meter, &self.interrupt)
    }

    /// The name and text of the module that a target leads to.
    fn found(&self, target: &str, mounts: &[Mount]) -> Result<(String, String), String> {
        let main = self.modules(&spec(ModuleRef::Target(target.into()), Vec::new()), &[], mounts);
        main.map(|m| (m.main.name.clone(), text(&m.main))).map_err(|f| {
            assert_eq!(f.code, FailureCode::InvalidJob);
            f.message
        })
    }
}

fn text(module: &crate::engine::ModuleFile) -> String {
    let mut text = String::new();
    (&*module.file).read_to_string(&mut text).unwrap();
    text
}

fn mount(guest: &str, host: PathBuf) -> Mount {
    Mount { guest: guest.into(), host, writable: false, handle: None }
}

#[test]
fn among_the_inputs() {
    let bench = Bench::new();
    let host = bench.dir.path().join("host");
    std::fs::create_dir_all(host.join("two")).unwrap();
    std::fs::create_dir_all(host.join("one/sub")).unwrap();
    for name in ["one/main.wasm", "one/readme", "two/a.wasm", "two/b.wasm", "file"] {
        std::fs::write(host.join(name), name).unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", host.join("escape.wasm")).unwrap();
    let mounts = [
        mount("/dir", host.clone()),
        mount("/app/main.wasm", host.join("one/main.wasm")),
        mount("/down/loaded.wasm", host.join("two/a.wasm")),
        mount("/down/other.txt", host.join("file")),
    ];
    let found = |target: &str| bench.found(target, &mounts);
    let pair = |name: &str, text: &str| Ok((name.to_owned(), text.to_owned()));
    assert_eq!(found("/app/main.wasm"), pair("/app/main.wasm", "one/main.wasm"));
    assert_eq!(found("app//./main.wasm"), pair("app//./main.wasm", "one/main.wasm"));
    assert_eq!(found("/dir/two/b.wasm"), pair("/dir/two/b.wasm", "two/b.wasm"));
    assert_eq!(found("/dir/one"), pair("/dir/one/main.wasm", "one/main.wasm"));
    assert_eq!(found("/down"), pair("/down/loaded.wasm", "two/a.wasm"));
    assert!(found("/dir/two").unwrap_err().contains("which of these is the module: a.wasm, b.wasm?"));
    for none in
        ["/none", "/dir/none.wasm", "/dir/one/sub", "/app/main.wasm/x", "/dir/escape.wasm", "/dir/../x"]
    {
        assert!(found(none).is_err(), "{none}");
    }
    assert!(found("/none").unwrap_err().starts_with("Engine.Params.EntryModule: '/none': no file is there"));
}

#[test]
fn from_sources_of_their_own() {
    let server = Server::fixed("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmain");
    let bench = Bench::new();
    let mut main = inline("", "", "");
    main.source.0.kind = "urlDownload".into();
    main.source.0.params = [("URL".to_owned(), json!(server.url("/main.wasm")))].into_iter().collect();
    let imports = vec![
        ModuleRef::Source(inline("lib", "", "library")),
        ModuleRef::Source(inline("", "/wasm/other", "other")),
        ModuleRef::Target("/in/lib.wasm".into()),
    ];
    let host = bench.dir.path().join("third");
    std::fs::write(&host, "third").unwrap();
    let (inputs, mounts) = ([inline("third", "/in/lib.wasm", "")], [mount("/in/lib.wasm", host)]);
    let modules = bench.modules(&spec(ModuleRef::Source(main.clone()), imports), &inputs, &mounts).unwrap();
    assert_eq!(text(&modules.main), "main");
    let imported: Vec<_> = modules.imports.iter().map(|i| (i.names.clone(), text(&i.module))).collect();
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        imported,
        [
            (names(&["lib"]), "library".to_owned()),
            (names(&["/wasm/other"]), "other".to_owned()),
            (names(&["third", "/in/lib.wasm"]), "third".to_owned()),
        ]
    );
    assert!(bench.meter.used() > Bytes(4 * 4096));

    let nameless = spec(ModuleRef::Source(main), vec![ModuleRef::Source(inline("", "", "x"))]);
    let bench = Bench::new();
    let failure = bench.modules(&nameless, &[], &[]).unwrap_err();
    assert!(
        failure.message.starts_with("Engine.Params.ImportModules[0]: the source needs an Alias"),
        "{failure:?}"
    );
    let bad = spec(ModuleRef::Source(inline("", "", "").clone()), Vec::new());
    assert!(
        Bench::with_disk(Bytes(100))
            .modules(&bad, &[], &[])
            .unwrap_err()
            .message
            .starts_with("Engine.Params")
    );
}
