//! The way of a board's settings and name: from the boot partition to a node that keeps its name.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::node::{CODLING, Dir, Node, refused, text};

/// A boot partition and a settings directory.
struct Card(Dir);

impl Card {
    fn new(settings: &str) -> Self {
        let card = Self(Dir::new());
        std::fs::create_dir(card.boot()).unwrap();
        std::fs::create_dir(card.etc()).unwrap();
        std::fs::write(card.boot().join("codling.yaml"), settings).unwrap();
        std::fs::write(card.etc().join("config.yaml"), "Results:\n  MaxCount: 5\n  Quota: 1GiB\n").unwrap();
        card
    }

    fn boot(&self) -> PathBuf {
        self.0.join("boot")
    }

    fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }

    fn first_boot(&self, more: &[&str]) -> Output {
        let me = text(&Command::new("id").arg("-un").output().unwrap().stdout);
        let mut command = Command::new(&*CODLING);
        command.arg("first-boot").arg("--boot").arg(self.boot()).arg("--etc").arg(self.etc());
        command.args(["--owner", me.trim()]).args(more).output().unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.boot()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A setting of a node that uses these settings.
    fn setting(&self, key: &str) -> (String, String) {
        let mut command = Command::new(&*CODLING);
        command.args(["config", "list", "--output", "json", "--config"]).arg(self.etc().join("config.yaml"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        let row = rows.as_array().unwrap().iter().find(|row| row["Key"] == key).unwrap();
        (row["Value"].as_str().unwrap().to_owned(), row["Origin"].as_str().unwrap().to_owned())
    }
}

#[test]
fn settings_of_the_boot_partition_are_in_force_once_and_leave_it() {
    // As an editor of another system writes it.
    let card = Card::new(
        "\u{feff}Results:\r\n  MaxCount: 7\r\nAPI:\r\n  Auth:\r\n    Token: a-token-of-the-test\r\n",
    );
    let output = card.first_boot(&["--output", "json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let part = card.etc().join("config.d/50-boot.yaml");
    assert_eq!((&said["Taken"], said["Part"].as_str()), (&Value::Bool(true), part.to_str()));
    assert_eq!(part.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(card.names(), Vec::<String>::new());
    assert_eq!(card.setting("Results.MaxCount"), ("7".to_owned(), format!("{}:2", part.display())));
    assert_eq!(card.setting("Results.Quota").0, "1GiB");
    assert_eq!(card.setting("API.Auth.Token").0, "(set)");
    // Again: nothing.
    let output = card.first_boot(&["--output", "json"]);
    assert!(output.status.success());
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["Taken"], &said["Part"]), (&Value::Bool(false), &Value::Null));
    // A node takes them from the file that it is given.
    let node =
        Node::start(&card.0.join("data"), &["--config", card.etc().join("config.yaml").to_str().unwrap()]);
    assert_eq!(node.get("/api/v1/orchestrator/jobs").0, 401);
}

#[test]
fn wrong_settings_stay_on_the_boot_partition_and_the_node_starts_without_them() {
    for wrong in
        ["Results:\n  MaxCuont: 7\n", "Results:\n  MaxCount: lots\n", "API:\n  Host: 0.0.0.0\n", "}{"]
    {
        let card = Card::new(wrong);
        let output = card.first_boot(&[]);
        assert_eq!(output.status.code(), Some(78), "{wrong}: {}", text(&output.stderr));
        assert_eq!(card.names(), ["codling.yaml", "codling.yaml.error"]);
        let reason = std::fs::read_to_string(card.boot().join("codling.yaml.error")).unwrap();
        let first = reason.lines().find_map(|line| line.strip_prefix("error: ")).unwrap();
        assert!(text(&output.stderr).contains(first), "the journal says the same: {reason}");
        assert!(!card.etc().join("config.d").exists());
        let config = card.etc().join("config.yaml");
        drop(Node::start(&card.0.join("data"), &["--config", config.to_str().unwrap()]));
        // Corrected, they are taken, and the reason goes.
        std::fs::write(card.boot().join("codling.yaml"), "Results:\n  MaxCount: 7\n").unwrap();
        assert!(card.first_boot(&[]).status.success());
        assert_eq!((card.names(), card.setting("Results.MaxCount").0), (Vec::new(), "7".to_owned()));
    }
}

#[test]
fn a_boot_partition_that_cannot_be_used_is_an_error_and_one_without_settings_is_none() {
    let card = Card::new("");
    std::fs::remove_file(card.boot().join("codling.yaml")).unwrap();
    assert!(card.first_boot(&[]).status.success());
    std::fs::create_dir(card.boot().join("codling.yaml")).unwrap();
    let output = card.first_boot(&[]);
    assert_eq!(output.status.code(), Some(74));
    assert!(text(&output.stderr).contains("not a file"), "{}", text(&output.stderr));
    let missing =
        Command::new(&*CODLING).args(["first-boot", "--boot", "/nonexistent", "--owner", "root"]).output();
    assert!(missing.unwrap().status.success());
}

#[test]
fn the_example_for_cloud_init_writes_settings_that_are_taken() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/firstboot/user-data.example");
    let example = std::fs::read_to_string(path).unwrap();
    assert!(example.starts_with("#cloud-config\n"), "cloud-init passes over anything else");
    let example: Value = yaml_serde::from_str(&example).unwrap();
    let file = &example["write_files"][0];
    assert_eq!(file["path"], "/boot/firmware/codling.yaml");
    let card = Card::new(file["content"].as_str().unwrap());
    let output = card.first_boot(&[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(card.setting("Results.Quota").0, "50%");
}

/// A device tree with that content.
fn tree(dir: &Path, model: &str, compatible: &[&str], serial: &str) -> PathBuf {
    let tree = dir.join(format!("tree-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("model"), format!("{model}\0")).unwrap();
    std::fs::write(tree.join("compatible"), format!("{}\0", compatible.join("\0"))).unwrap();
    std::fs::write(tree.join("serial-number"), format!("{serial}\0")).unwrap();
    tree
}

/// The name of a node with that device tree and a data directory of that name.
fn name(dir: &Dir, tree: &Path, data: &str, more: &[&str]) -> String {
    let mut node = Node::start_env(&dir.join(data), more, &[("CODLING_DEVICE_TREE", tree.to_str().unwrap())]);
    let (_, answer) = node.get("/api/v1/agent/node");
    let id = answer["NodeID"].as_str().or_else(|| answer["Info"]["NodeID"].as_str()).unwrap().to_owned();
    assert!(!node.log_so_far().contains("deadbeef"), "the serial number itself is not told");
    id
}

#[test]
fn a_board_keeps_its_name_when_its_card_is_written_anew() {
    let dir = Dir::new();
    let pi = ["raspberrypi,4-model-b", "brcm,bcm2711"];
    let first = tree(&dir.0, "Raspberry Pi 4 Model B Rev 1.4", &pi, "10000000deadbeef");
    let id = name(&dir, &first, "a", &[]);
    let uuid = uuid::Uuid::parse_str(id.strip_prefix("n-").unwrap()).unwrap();
    assert_eq!((uuid.get_version_num(), id.contains("deadbeef")), (8, false));
    std::fs::remove_dir_all(dir.join("a")).unwrap();
    assert_eq!(name(&dir, &first, "a", &[]), id);
    // Another board has another, and a card that moves keeps the one that it has.
    let second = tree(&dir.0, "Raspberry Pi 4 Model B Rev 1.4", &pi, "10000000deadbeee");
    assert_ne!(name(&dir, &second, "b", &[]), id);
    assert_eq!(name(&dir, &second, "a", &[]), id);
    // Whoever wants chance gets it, and so does a board without a number.
    assert_ne!(name(&dir, &first, "c", &["-c", "NameProvider=uuid"]), id);
    let none = tree(&dir.0, "Raspberry Pi 4 Model B Rev 1.4", &pi, "0000000000000000");
    assert_ne!(name(&dir, &none, "d", &[]), name(&dir, &none, "e", &[]));
}

#[test]
fn settings_for_another_board_are_refused() {
    let dir = Dir::new();
    let pi3 = tree(&dir.0, "Raspberry Pi 3 Model B Rev 1.2", &["raspberrypi,3-model-b", "brcm,bcm2837"], "1");
    let rock = tree(&dir.0, "Radxa ROCK Pi 4A", &["radxa,rockpi4", "rockchip,rk3399"], "1");
    for (tree, found) in [(&pi3, "Raspberry Pi 3 Model B Rev 1.2 (pi-3)"), (&rock, "Radxa ROCK Pi 4A")] {
        let env = [("CODLING_DEVICE_TREE", tree.to_str().unwrap())];
        let (status, said) = refused(&dir.join("data"), &["-c", "Board=pi-4"], &env);
        assert_eq!(status.code(), Some(78), "{said}");
        assert!(
            said.contains("made for pi-4") && said.contains(found) && said.contains("board-configs/"),
            "{said}"
        );
        assert!(!dir.join("data").exists(), "nothing was touched");
    }
    let env = [("CODLING_DEVICE_TREE", pi3.to_str().unwrap())];
    let mut right = Node::start_env(&dir.join("data"), &["-c", "Board=pi-3"], &env);
    assert!(!right.log_so_far().contains("Board"), "{}", right.log_so_far());
    drop(right);
    // A machine that does not say what it is: a warning.
    let env = [("CODLING_DEVICE_TREE", "/nonexistent")];
    let mut silent = Node::start_env(&dir.join("data"), &["-c", "Board=pi-4"], &env);
    assert!(silent.log_so_far().contains("cannot be told"), "{}", silent.log_so_far());
}
