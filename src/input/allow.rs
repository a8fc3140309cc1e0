//! Which paths of this machine jobs may have.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// One entry of `Compute.AllowListedLocalPaths`: a glob from the root, and whether it may be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedPath {
    /// `*` and `?` stand for any characters of one name, `**` for any number of names.
    parts: Vec<Vec<u8>>,
    writable: bool,
}

impl AllowedPath {
    /// Of a pattern without its `:rw` or `:ro`.
    #[must_use]
    pub fn new(pattern: &str, writable: bool) -> Self {
        let parts = pattern.split('/').filter(|part| !matches!(*part, "" | "."));
        Self { parts: parts.map(|part| part.as_bytes().to_vec()).collect(), writable }
    }

    /// Whether it allows that path, which must have been resolved: what links lead to counts, here and in the pattern.
    #[must_use]
    pub fn allows(&self, resolved: &Path, write: bool) -> bool {
        if write && !self.writable {
            return false;
        }
        let names: Vec<&[u8]> = resolved
            .components()
            .filter_map(|c| match c {
                Component::Normal(name) => Some(name.as_bytes()),
                _ => None,
            })
            .collect();
        let any = |part: &Vec<u8>| part == b"**";
        let fits =
            |part: &Vec<u8>, name: &&[u8]| wild(part, name, |c| *c == b'*', |c, d| *c == b'?' || c == d);
        [self.parts.clone(), self.resolved()].iter().any(|parts| wild(parts, &names, any, fits))
    }

    /// The pattern with the links in its fixed beginning followed.
    fn resolved(&self) -> Vec<Vec<u8>> {
        let fixed =
            self.parts.iter().take_while(|part| !part.iter().any(|c| matches!(c, b'*' | b'?'))).count();
        let (begin, rest) = self.parts.split_at(fixed);
        let mut path = PathBuf::from("/");
        path.extend(begin.iter().map(|part| OsStr::from_bytes(part)));
        match path.canonicalize() {
            Ok(path) => {
                let names = path.iter().skip(1).map(|name| name.as_bytes().to_vec());
                names.chain(rest.iter().cloned()).collect()
            }
            // What is not there cannot lead elsewhere.
            Err(_) => self.parts.clone(),
        }
    }
}

/// Whether `pattern` describes all of `text`; where `any` holds, a pattern item stands for any number of text items.
/// Steps back only to the last such item, which is enough: time is at most the product of the lengths.
fn wild<P, T>(pattern: &[P], text: &[T], any: impl Fn(&P) -> bool, fits: impl Fn(&P, &T) -> bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry = None;
    while let Some(item) = text.get(t) {
        match pattern.get(p) {
            Some(star) if any(star) => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(one) if fits(one, item) => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, path: &str) -> bool {
        AllowedPath::new(pattern, false).allows(Path::new(path), false)
    }

    #[test]
    fn patterns() {
        let table = [
            ("/no/data", "/no/data", true),
            ("/no/data/", "/no/data", true),
            ("/no/data", "/no/data/x", false),
            ("/no/data", "/no", false),
            ("/no/data/**", "/no/data", true),
            ("/no/data/**", "/no/data/x/y", true),
            ("/no/data/**", "/no/database", false),
            ("/no/data/*", "/no/data/x", true),
            ("/no/data/*", "/no/data", false),
            ("/no/data/*", "/no/data/x/y", false),
            ("/no/*/y", "/no/x/y", true),
            ("/no/**/y", "/no/y", true),
            ("/no/**/y", "/no/a/b/y", true),
            ("/no/**/y", "/no/a/b/y/z", false),
            ("/no/**/y/**/z", "/no/y/y/x/z/z", true),
            ("/no/*.csv", "/no/a.csv", true),
            ("/no/*.csv", "/no/a.csv.gz", false),
            ("/no/?.csv", "/no/ab.csv", false),
            ("/no/a*b*c", "/no/a-b-b-c", true),
            ("/no/a*b*c", "/no/a-b-b", false),
            ("**", "/anything/at/all", true),
            ("/**", "/", true),
            ("/no/a**", "/no/abc", true),
            ("/no/[a]", "/no/a", false),
        ];
        for (pattern, path, wanted) in table {
            assert_eq!(allows(pattern, path), wanted, "{pattern} {path}");
        }
    }

    #[test]
    fn writing_needs_its_word() {
        let path = Path::new("/no/x");
        assert!(!AllowedPath::new("/no/*", false).allows(path, true));
        assert!(AllowedPath::new("/no/*", true).allows(path, true));
        assert!(AllowedPath::new("/no/*", true).allows(path, false));
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = format!("/{}b", "a*".repeat(500));
        assert!(!allows(&pattern, &format!("/{}", "a".repeat(255))));
        let pattern = format!("{}/b", "/**/a".repeat(500));
        assert!(!allows(&pattern, &"/a".repeat(2000)));
    }
}
