//! Any bytes as a file of weights: an error of one line, or a model.
#![no_main]

use hasn::model::Model;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = Model::parse("fuzz.safetensors", bytes) {
        assert!(!error.to_string().contains('\n'));
    }
});
