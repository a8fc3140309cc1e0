//! Users of the system, by name.

use std::io::{self, BufRead, BufReader};
use std::path::Path;

/// Longest line that is read: longer ones are no users.
const LINE_MAX: u64 = 4096;

/// Most lines that are looked at.
const LINES_MAX: usize = 65_536;

/// Ids of a user and of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user's.
    pub uid: u32,
    /// Its group's.
    pub gid: u32,
}

/// Looks a user up in `/etc/passwd`, where packages put theirs.
///
/// # Errors
/// The file cannot be read.
pub fn find(name: &str) -> io::Result<Option<User>> {
    find_in(Path::new("/etc/passwd"), name)
}

fn find_in(path: &Path, name: &str) -> io::Result<Option<User>> {
    use std::io::Read;
    let mut reader = BufReader::new(std::fs::File::open(path)?);
    for _ in 0..LINES_MAX {
        let mut line = Vec::new();
        if reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&line);
        let mut fields = line.trim_end().split(':');
        if fields.next() != Some(name) {
            continue;
        }
        if let (Some(Ok(uid)), Some(Ok(gid))) = (fields.nth(1).map(str::parse), fields.next().map(str::parse))
        {
            return Ok(Some(User { uid, gid }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let path = std::env::temp_dir().join(format!("codling-passwd-{}", uuid::Uuid::new_v4()));
        let long = format!("codling-{}:x:1:1::/:/bin/sh\n", "x".repeat(10_000));
        std::fs::write(
            &path,
            format!(
                "root:x:0:0::/root:/bin/bash\ncodling2:x:5:6\n{long}codling:x:998:997::/var/lib/codling:/\n"
            ),
        )
        .unwrap();
        assert_eq!(find_in(&path, "codling").unwrap(), Some(User { uid: 998, gid: 997 }));
        assert_eq!(find_in(&path, "codl").unwrap(), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(find("root").unwrap(), Some(User { uid: 0, gid: 0 }));
    }
}
