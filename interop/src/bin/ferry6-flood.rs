//! `ferry6-flood`: see `flood` of the library.
fn main() -> std::process::ExitCode {
    ferry6_interop::flood()
}
