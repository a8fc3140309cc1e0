use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;

use super::super::testing::Scratch;
use super::super::{UnpackLimits, unpack};
use super::*;

#[derive(Debug, Clone)]
enum Made {
    File { bytes: Vec<u8>, repeat: usize, mode: u32 },
    Directory { mode: u32 },
    Symlink { target: String },
    HardLink { to: usize },
}

fn made() -> impl Strategy<Value = Made> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..600);
    prop_oneof![
        4 => (bytes, 0usize..150, 0u32..0o1000).prop_map(|(bytes, repeat, mode)| Made::File {
            bytes,
            repeat,
            mode: mode | 0o600,
        }),
        2 => (0u32..0o1000).prop_map(|mode| Made::Directory { mode: mode | 0o700 }),
        1 => "[a-z]{1,5}(/[a-z]{1,200}){0,2}".prop_map(|target| Made::Symlink { target }),
        1 => (0usize..20).prop_map(|to| Made::HardLink { to }),
    ]
}

/// Builds what can be built of it: names that clash are left out.
fn build(tree: &Scratch, parts: &[(String, Made)]) {
    let mut files = Vec::new();
    let mut modes = Vec::new();
    for (name, made) in parts {
        let path = tree.path().join(name);
        let parent = path.parent().unwrap();
        if fs::create_dir_all(parent).is_err() || fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match made {
            Made::File { bytes, repeat, mode } => {
                fs::write(&path, bytes.repeat(*repeat)).unwrap();
                modes.push((path.clone(), *mode));
                files.push(path);
            }
            Made::Directory { mode } => {
                fs::create_dir(&path).unwrap();
                modes.push((path, *mode));
            }
            Made::Symlink { target } => symlink(target, &path).unwrap(),
            Made::HardLink { to } if !files.is_empty() => {
                fs::hard_link(&files[to % files.len()], &path).unwrap();
            }
            Made::HardLink { .. } => {}
        }
    }
    for (path, mode) in modes {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(line.trim(), 8).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_was_packed_comes_out_again(
        parts in proptest::collection::vec(("[a-c]{1,2}(/[a-c\u{e9} .-]{1,60}[a-z]){0,3}", made()), 0..25),
        level in 0u8..=6,
    ) {
        let (tree, dest) = (Scratch::new(), Scratch::new());
        build(&tree, &parts);
        let options = PackOptions { level: level.try_into().unwrap(), ..PackOptions::default() };
        let archive = packed_with(tree.path(), &options);
        let done = unpack(&archive[..], dest.path(), &UnpackLimits::default()).unwrap();
        prop_assert!(done.warnings.kept().is_empty());
        // The umask of whoever runs the test is not undone: compare under it.
        let mask = umask();
        let mut wanted = snapshot(tree.path());
        for node in wanted.values_mut() {
            if let Node::File { mode, .. } | Node::Directory { mode } = node {
                *mode &= !mask;
            }
        }
        prop_assert_eq!(snapshot(dest.path()), wanted);
    }
}
