//! A job's module, up to where it would run.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use super::{ModuleFile, module};

/// What is refused is refused in words of bounded length; what can be run can be run without its start section, too.
pub(crate) fn module(data: &[u8]) {
    let Ok(memory) = rustix::fs::memfd_create("module", rustix::fs::MemfdFlags::CLOEXEC) else { return };
    let mut file = File::from(memory);
    if file.write_all(data).is_err() {
        return;
    }
    let file = ModuleFile { name: "m".into(), file: Arc::new(file) };
    let bytes = match module::read(&file) {
        Ok(bytes) => bytes,
        Err(failure) => return assert!(failure.message.len() < 1000),
    };
    assert_eq!(bytes, data);
    #[cfg(any(feature = "interpreter", not(target_pointer_width = "64")))]
    {
        let engine = wasmi::Engine::new(&super::interpreted::config());
        let as_it_is = wasmi::Module::new(&engine, &bytes);
        if let Some(rest) = module::without_start(&bytes) {
            let without = wasmi::Module::new(&engine, &rest);
            assert_eq!(as_it_is.is_ok(), without.is_ok(), "{as_it_is:?} but {without:?} without start");
        }
        if let Err(error) = as_it_is {
            let failure = module::malformed(&file, &error.to_string());
            assert!(failure.message.chars().count() < 1000, "{failure:?}");
        }
    }
}
