//! The control socket, and the commands that talk to it.

pub mod command;
pub mod status;
