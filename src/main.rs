//! The codling program.

fn main() {}
