//! The ferry6 binary: IPv6 across an IPv4-only network in a standard IPsec tunnel, in userspace.

use std::process::ExitCode;

fn main() -> ExitCode {
    ferry6::cli::main()
}
