#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bpmgate_fuzz::splice::check(input));
