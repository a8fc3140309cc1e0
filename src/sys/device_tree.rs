//! What the firmware says of the board: a directory of small files, each ended by NUL.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::machine::text;
use crate::model::{Board, Recognised};

/// A variable that names the directory, where it is not in its usual place: a container does not see `/sys/firmware`.
pub const VARIABLE: &str = "CODLING_DEVICE_TREE";

/// Where it is, beneath the root: the first is a link to the second where both are there.
const PLACES: [&str; 2] = ["proc/device-tree", "sys/firmware/devicetree/base"];

/// What a device tree says of its board.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceTree {
    /// What the board calls itself, e.g. `Raspberry Pi Zero 2 W Rev 1.0`.
    pub model: Option<String>,
    /// What it is to the kernel's drivers, from the board to the chip.
    pub compatible: Vec<String>,
    /// Its serial number, unless nobody gave it one. It outlives the SD card.
    pub serial: Option<String>,
}

impl DeviceTree {
    /// The one that is in a directory; empty if there is none.
    #[must_use]
    pub fn read(dir: &Path) -> Self {
        let compatible = text(&dir.join("compatible")).unwrap_or_default();
        Self {
            model: text(&dir.join("model")),
            compatible: compatible.split('\0').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
            serial: text(&dir.join("serial-number")).and_then(|serial| meaningful(&serial)),
        }
    }

    /// The one of the machine whose files are below `root`.
    #[must_use]
    pub fn beneath(root: &Path) -> Self {
        let trees = PLACES.iter().map(|place| Self::read(&root.join(place)));
        trees
            .reduce(|first, second| if first == Self::default() { second } else { first })
            .unwrap_or_default()
    }

    /// Which board that is.
    #[must_use]
    pub fn board(&self) -> Recognised {
        Board::recognise(&self.compatible, self.model.as_deref())
    }

    /// The board for people: its model and, if codling knows it, its name here.
    #[must_use]
    pub fn describe(&self) -> String {
        let model = self.model.as_deref().or_else(|| self.compatible.first().map(String::as_str));
        let model = model.unwrap_or("a machine without a name");
        match self.board() {
            Recognised::Known(board) => format!("{model} ({board})"),
            Recognised::Other | Recognised::Silent => model.to_owned(),
        }
    }

    /// The one that the variable names, if it is set.
    #[must_use]
    pub fn named(value: Option<OsString>) -> Option<Self> {
        value.filter(|dir| !dir.is_empty()).map(|dir| Self::read(&PathBuf::from(dir)))
    }
}

/// The serial number, unless it is blank or all zeros.
fn meaningful(serial: &str) -> Option<String> {
    let serial = serial.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    serial.bytes().any(|b| b.is_ascii_alphanumeric() && b != b'0').then(|| serial.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_of_zeros_is_none() {
        assert_eq!(meaningful("10000000abcdef01\0").as_deref(), Some("10000000abcdef01"));
        assert_eq!(meaningful("1422519058833").as_deref(), Some("1422519058833"));
        for none in ["", "0", "0000000000000000", " \0", "--"] {
            assert_eq!(meaningful(none), None, "{none:?}");
        }
    }

    #[test]
    fn no_directory_is_an_empty_tree() {
        assert_eq!(DeviceTree::beneath(Path::new("/nonexistent")), DeviceTree::default());
        assert_eq!(DeviceTree::named(None), None);
        assert_eq!(DeviceTree::named(Some("".into())), None);
        assert_eq!(DeviceTree::named(Some("/nonexistent".into())), Some(DeviceTree::default()));
    }
}
