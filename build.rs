//! Packs what the program carries, and leaves out what the program cannot use: it is flashed to boards, and every
//! byte of it counts.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::{env, fs};

/// Files of the repository, and what they are called in the build directory.
const CARRIED: [(&str, &str); 3] = [
    ("guests/weather.wasm", "weather.wasm.gz"),
    ("examples/data/seattle-weather.csv", "seattle-weather.csv.gz"),
    ("src/api/openapi.json", "openapi.json.gz"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    for (from, to) in CARRIED {
        println!("cargo:rerun-if-changed={from}");
        let file = fs::File::create(Path::new(&out).join(to))?;
        let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::best());
        gzip.write_all(&fs::read(from)?)?;
        gzip.finish()?;
    }
    // An update has to be for the same processor.
    println!("cargo:rustc-env=CODLING_TARGET={}", env::var("TARGET")?);
    leave_out_unwinding();
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}

/// Panics of the program abort (see Cargo.toml), where it is not built for people who develop it.
fn leave_out_unwinding() {
    const SCRIPT: &str = "build.ld";
    println!("cargo:rerun-if-changed={SCRIPT}");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        let dir = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{dir}/{SCRIPT}");
    }
}
