//! The ferry6 binary.
fn main() {}
