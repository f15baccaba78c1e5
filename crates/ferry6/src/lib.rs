//! The ferry6 program.
