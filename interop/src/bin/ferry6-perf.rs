//! `ferry6-perf`: see `perf` of the library.
fn main() -> std::process::ExitCode {
    ferry6_interop::perf()
}
