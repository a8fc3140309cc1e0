//! libFuzzer for the target that `FUZZ_TARGET` names.

#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<String> = LazyLock::new(|| std::env::var("FUZZ_TARGET").unwrap_or_default());

libfuzzer_sys::fuzz_target!(|data: &[u8]| codling::fuzz::feed(&TARGET, data));
