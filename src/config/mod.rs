//! Settings: flags over environment over files over defaults, from one table of keys.

pub mod settings;
pub mod values;

pub use settings::{
    Admission, Api, Compute, Disabled, Inputs, JobDefaults, LocalPublisher, NameProvider, Node, Results,
    Settings, Store, StorePlace, TypeDefaults,
};
pub use values::{AddressWord, Advertise, Host, LocalPath, Scale, Secret};
