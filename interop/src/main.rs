//! `ferry6-interop`: see the library.
fn main() -> std::process::ExitCode {
    ferry6_interop::interop()
}
