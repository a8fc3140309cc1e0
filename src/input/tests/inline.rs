use std::io::{Read as _, Write as _};

use base64::Engine as _;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn archive(build: impl FnOnce(&mut tar::Builder<GzEncoder<Vec<u8>>>)) -> Value {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    build(&mut builder);
    gzip_url(&builder.into_inner().unwrap().finish().unwrap())
}

fn gzip_url(bytes: &[u8]) -> Value {
    json!({"URL": format!("data:application/gzip;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes))})
}

fn header(name: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    // Written past the checks of `set_path`: hostile names too.
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

#[test]
fn text_becomes_a_file() {
    let bench = Bench::new();
    let mount =
        bench.fetch("Inline", "/in/greeting.txt", json!({"URL": "data:text/plain,hello%20world"})).unwrap();
    assert_eq!((mount.guest.as_str(), mount.writable), ("/in/greeting.txt", false));
    assert_eq!(std::fs::read_to_string(mount.host).unwrap(), "hello world");
    assert_eq!(bench.meter.used(), Bytes(2 * 4096 + 11));
}

#[test]
fn an_archive_becomes_a_directory() {
    let bench = Bench::new();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let url = archive(|tar| {
        tar.append_data(&mut header("", tar::EntryType::Directory, 0), "a/", &[][..]).unwrap();
        tar.append_data(&mut header("", tar::EntryType::Regular, 5), "a/f", &b"hello"[..]).unwrap();
        tar.append_data(&mut header("", tar::EntryType::Regular, 1), "./b/c/d", &b"x"[..]).unwrap();
        let mut gnu = tar::Header::new_gnu();
        gnu.set_size(4);
        tar.append_data(&mut gnu, &long, &b"long"[..]).unwrap();
        tar.append_pax_extensions([("path", "pax-name".as_bytes()), ("mtime", b"1.5")]).unwrap();
        tar.append_data(&mut header("", tar::EntryType::Regular, 1), "short", &b"p"[..]).unwrap();
    });
    let mount = bench.fetch("inline", "/in", url).unwrap();
    let read = |name: &str| std::fs::read_to_string(mount.host.join(name)).unwrap();
    assert_eq!([read("a/f"), read("b/c/d"), read(&long), read("pax-name")], ["hello", "x", "long", "p"]);
    assert_eq!(bench.meter.used(), Bytes(on_disk(&bench.dir.path().join("inputs"))));
}

#[test]
fn hostile_archives_are_refused() {
    let refused = |url: Value| {
        let bench = Bench::new();
        let refused = bench.refused("inline", url);
        assert!(on_disk(bench.dir.path()) <= bench.meter.limit().0 + 4096);
        assert_eq!(std::fs::read_dir(bench.dir.path()).unwrap().count(), 1, "nothing lies beside the inputs");
        refused
    };
    for name in ["../f", "a/../../f", "/etc/f", "a/.."] {
        let url = archive(|tar| tar.append(&header(name, tar::EntryType::Regular, 1), &b"x"[..]).unwrap());
        let (code, message) = refused(url);
        assert_eq!(code, FailureCode::InvalidJob, "{message}");
        assert!(message.contains("leads out of its directory"), "{message}");
    }
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo, tar::EntryType::Char] {
        let (_, message) = refused(archive(|tar| tar.append(&header("l", kind, 0), &[][..]).unwrap()));
        assert!(message.contains("\"l\", neither a file nor a directory"), "{message}");
    }
    let deep = archive(|tar| {
        let mut gnu = tar::Header::new_gnu();
        gnu.set_size(0);
        tar.append_data(&mut gnu, "d/".repeat(200), &[][..]).unwrap();
    });
    assert!(refused(deep).1.contains("lies too deep"));
    let bomb = archive(|tar| {
        tar.append(&header("zeros", tar::EntryType::Regular, 64 << 20), std::io::repeat(0).take(64 << 20))
            .unwrap();
    });
    assert_eq!(refused(bomb).0, FailureCode::DiskQuota);
    let many = archive(|tar| {
        for i in 0..5000 {
            tar.append(&header(&format!("{i}"), tar::EntryType::Regular, 0), &[][..]).unwrap();
        }
    });
    assert_eq!(refused(many).0, FailureCode::DiskQuota);
    for kind in [tar::EntryType::GNULongName, tar::EntryType::XHeader] {
        let url = archive(|tar| {
            tar.append(&header("n", kind, 1 << 20), std::io::repeat(b'x').take(1 << 20)).unwrap()
        });
        assert!(refused(url).1.contains("too long"));
    }
}

#[test]
fn damaged_archives_are_refused() {
    let bench = Bench::new();
    assert_eq!(bench.refused("inline", gzip_url(b"not gzip")).0, FailureCode::InvalidJob);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&[b'x'; 2000]).unwrap();
    let bench = Bench::new();
    assert_eq!(bench.refused("inline", gzip_url(&gzip.finish().unwrap())).0, FailureCode::InvalidJob);
    let bench = Bench::new();
    let cut =
        archive(|tar| tar.append(&header("f", tar::EntryType::Regular, 9000), &[b'x'; 600][..]).unwrap());
    assert!(bench.refused("inline", cut).1.contains("cut off"));
}

#[test]
fn what_does_not_fit_is_not_written() {
    let bench = Bench::with_disk(Bytes::kib(16));
    let (code, message) = bench.refused("inline", json!({"URL": format!("data:,{}", "x".repeat(20_000))}));
    assert_eq!(code, FailureCode::DiskQuota);
    assert!(message.contains("may write 16.0 KiB"), "{message}");
    assert_eq!(on_disk(&bench.input_dir()), 0);
}
