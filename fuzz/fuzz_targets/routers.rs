#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferry6_fuzz_targets::routers(data));
