//! The ferry6 program. The binary is [`cli::main`]; all else is public so that tests and tools can drive it.

pub mod admin;
pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod daemon;
pub mod demo;
pub mod doctor;
pub mod exit;
pub mod files;
pub mod helper;
pub mod import;
pub mod keylog;
pub mod lab;
pub mod leases;
pub mod logging;
pub mod manual;
pub mod monitor;
pub mod net;
pub mod notices;
pub mod pki;
pub mod reload;
mod revocation;
pub mod sandbox;
pub mod supervisor;
pub mod view;
