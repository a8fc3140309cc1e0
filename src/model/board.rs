//! The boards that codling comes with settings for, and how each calls itself in its device tree.

use std::fmt;

/// A board of `board-configs/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Board {
    /// Raspberry Pi Zero, Zero W, and the first generation.
    PiZero,
    /// Raspberry Pi Zero 2 W and 3 A+.
    PiZero2,
    /// Raspberry Pi 3.
    Pi3,
    /// Raspberry Pi 4 and 400.
    Pi4,
    /// Raspberry Pi 5 and 500.
    Pi5,
    /// NVIDIA Jetson Nano.
    JetsonNano,
    /// NVIDIA Jetson Orin Nano.
    JetsonOrinNano,
}

/// What a machine says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognised {
    /// One of [`Board`].
    Known(Board),
    /// A board, but none of those.
    Other,
    /// It does not say: a PC, a virtual machine, or a container without the device tree.
    Silent,
}

impl Board {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::PiZero,
        Self::PiZero2,
        Self::Pi3,
        Self::Pi4,
        Self::Pi5,
        Self::JetsonNano,
        Self::JetsonOrinNano,
    ];

    /// Their names, which are those of the folders of `board-configs/`, in the order of [`Self::ALL`].
    pub const NAMES: &'static [&'static str] =
        &["pi-zero", "pi-zero-2", "pi-3", "pi-4", "pi-5", "jetson-nano", "jetson-orin-nano"];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The board of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|board| board.as_str() == name)
    }

    /// Whether it is a Raspberry Pi.
    #[must_use]
    pub const fn is_pi(self) -> bool {
        !matches!(self, Self::JetsonNano | Self::JetsonOrinNano)
    }

    /// What the device tree's `compatible` and `model` mean.
    #[must_use]
    pub fn recognise(compatible: &[String], model: Option<&str>) -> Recognised {
        if compatible.is_empty() && model.is_none() || compatible.iter().any(|word| is_virtual(word)) {
            return Recognised::Silent;
        }
        let by_word = |table: &[(&str, Self)]| {
            compatible.iter().find_map(|word| {
                table.iter().find(|(known, _)| word.eq_ignore_ascii_case(known)).map(|(_, board)| *board)
            })
        };
        let by_module = || compatible.iter().find_map(|word| orin_nano_module(word));
        let by_model = || {
            let model = model?;
            MODELS.iter().find(|(known, _)| model.contains(known)).map(|(_, board)| *board)
        };
        by_word(BOARDS)
            .or_else(by_module)
            .or_else(by_model)
            .or_else(|| by_word(CHIPS))
            .map_or(Recognised::Other, Recognised::Known)
    }
}

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// First words of `compatible`, as the kernels of Raspberry Pi, Debian and NVIDIA have them.
const BOARDS: &[(&str, Board)] = &[
    ("raspberrypi,model-zero", Board::PiZero),
    ("raspberrypi,model-zero-w", Board::PiZero),
    ("raspberrypi,model-zero-2-w", Board::PiZero2),
    ("raspberrypi,3-model-a-plus", Board::PiZero2),
    ("raspberrypi,3-model-b", Board::Pi3),
    ("raspberrypi,3-model-b-plus", Board::Pi3),
    ("raspberrypi,3-compute-module", Board::Pi3),
    ("raspberrypi,4-model-b", Board::Pi4),
    ("raspberrypi,400", Board::Pi4),
    ("raspberrypi,4-compute-module", Board::Pi4),
    ("raspberrypi,5-model-b", Board::Pi5),
    ("raspberrypi,500", Board::Pi5),
    ("raspberrypi,5-compute-module", Board::Pi5),
    ("nvidia,jetson-nano", Board::JetsonNano),
    ("nvidia,p3450-0000", Board::JetsonNano),
];

/// Parts of `model`, where `compatible` tells too little. The longer ones first.
const MODELS: &[(&str, Board)] = &[
    ("Raspberry Pi Zero 2", Board::PiZero2),
    ("Raspberry Pi Zero", Board::PiZero),
    ("Orin Nano", Board::JetsonOrinNano),
    ("Jetson Nano", Board::JetsonNano),
];

/// Chips that only boards of one folder have: a later revision of a board is still that board.
const CHIPS: &[(&str, Board)] =
    &[("brcm,bcm2835", Board::PiZero), ("brcm,bcm2711", Board::Pi4), ("brcm,bcm2712", Board::Pi5)];

/// The modules of the Orin Nano (4 GB, 8 GB, 8 GB of the developer kit), whatever carries them; 0000 and 0001 are the
/// Orin NX.
fn orin_nano_module(word: &str) -> Option<Board> {
    ["p3767-0003", "p3767-0004", "p3767-0005"]
        .iter()
        .any(|module| word.contains(module))
        .then_some(Board::JetsonOrinNano)
}

/// Machines of qemu and other hypervisors have a device tree, and are no board.
fn is_virtual(word: &str) -> bool {
    word == "linux,dummy-virt" || word.starts_with("qemu,") || word.starts_with("xen,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(compatible: &[&str], model: Option<&str>) -> Recognised {
        let compatible: Vec<String> = compatible.iter().map(|word| (*word).to_owned()).collect();
        Board::recognise(&compatible, model)
    }

    #[test]
    fn names_and_boards_go_together() {
        for (board, name) in Board::ALL.into_iter().zip(Board::NAMES) {
            assert_eq!((board.as_str(), Board::of_name(name)), (*name, Some(board)));
        }
        assert_eq!((Board::ALL.len(), Board::of_name("pi-6")), (Board::NAMES.len(), None));
    }

    #[test]
    fn boards_are_known_by_what_their_kernels_say() {
        let known = [
            (&["raspberrypi,model-zero-w", "brcm,bcm2835"][..], "Raspberry Pi Zero W Rev 1.1", Board::PiZero),
            (&["raspberrypi,model-b-plus", "brcm,bcm2835"], "Raspberry Pi Model B Plus", Board::PiZero),
            (
                &["raspberrypi,model-zero-2-w", "brcm,bcm2837"],
                "Raspberry Pi Zero 2 W Rev 1.0",
                Board::PiZero2,
            ),
            (&["brcm,bcm2837"], "Raspberry Pi Zero 2 W Rev 1.0", Board::PiZero2),
            (&["raspberrypi,3-model-b-plus", "brcm,bcm2837"], "Raspberry Pi 3 Model B Plus", Board::Pi3),
            (&["raspberrypi,4-model-b", "brcm,bcm2711"], "Raspberry Pi 4 Model B Rev 1.4", Board::Pi4),
            (&["raspberrypi,4-model-c", "brcm,bcm2711"], "Raspberry Pi 4 Model C", Board::Pi4),
            (&["raspberrypi,5-model-b", "brcm,bcm2712"], "Raspberry Pi 5 Model B Rev 1.0", Board::Pi5),
            (
                &["nvidia,p3449-0000-b00+p3448-0000-b00", "nvidia,jetson-nano", "nvidia,tegra210"],
                "NVIDIA Jetson Nano Developer Kit",
                Board::JetsonNano,
            ),
            (
                &["nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234"],
                "NVIDIA Jetson Orin Nano Developer Kit",
                Board::JetsonOrinNano,
            ),
        ];
        for (compatible, model, board) in known {
            assert_eq!(of(compatible, Some(model)), Recognised::Known(board), "{model}");
        }
        for (compatible, model) in [
            (&["raspberrypi,2-model-b", "brcm,bcm2836"][..], "Raspberry Pi 2 Model B Rev 1.1"),
            (&["nvidia,p3768-0000+p3767-0000", "nvidia,p3767-0000"], "NVIDIA Jetson Orin NX"),
            (&["radxa,rockpi4", "rockchip,rk3399"], "Radxa ROCK Pi 4A"),
        ] {
            assert_eq!(of(compatible, Some(model)), Recognised::Other, "{model}");
        }
        assert_eq!(of(&[], None), Recognised::Silent);
        assert_eq!(of(&["linux,dummy-virt"], Some("linux,dummy-virt")), Recognised::Silent);
    }
}
