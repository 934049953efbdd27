//! bf16 and int16 have no visible loss: their code values against those of f32, on an image and on the clip.

use std::sync::Arc;

use hasn::FrameReader;
use hasn::engine::cpu::{Precision, level};
use hasn::engine::{EngineKind, EngineSpec, Network, NetworkId};
use hasn::frame::{Frame, FrameFormat};
use hasn::model::catalogue;

/// Number of compared frames of the clip, which all show the same scene.
const FRAMES_MAX: usize = 3;

/// Y' of every frame in 8-bit codes.
fn luma_codes(path: &str, model: &str, precision: Precision) -> Vec<u8> {
    let mut reader = FrameReader::open(path, 1).unwrap();
    let lr = reader.format();
    let sr = FrameFormat { width: 2 * lr.width, height: 2 * lr.height, ..lr };
    let networks = vec![Network::Hasn(Arc::new(catalogue::open(model).unwrap()))];
    let spec = EngineSpec {
        kind: EngineKind::Cpu(level::detect().unwrap(), precision),
        threads: 2,
        in_flight: 1,
        networks,
        memory_max: None,
        lr,
        sr,
    };
    let mut engine = spec.open().unwrap();
    let mut codes = Vec::new();
    for _ in 0..FRAMES_MAX {
        let Some(frame) = reader.next_frame().unwrap() else { break };
        engine.submit(frame, Frame::new(sr), NetworkId(0)).unwrap();
        let (_, sr) = engine.collect().unwrap().unwrap();
        codes.extend_from_slice(sr.buffer.plane(0));
    }
    codes
}

/// Tolerance of a precision against f32.
struct Limits {
    psnr_db: f64,
    /// At most one code value in this number may be off by more than two.
    far_codes_one_in: usize,
}

#[test]
fn code_values_of_short_products_are_within_two_of_f32() {
    let level = level::detect().unwrap();
    // Independent noise at 58 dB lowers a PSNR of 38.2 dB by 0.045 dB.
    let bf16 = (Precision::Bf16, Limits { psnr_db: 58.0, far_codes_one_in: 10_000 });
    let int16 = (Precision::Int16, Limits { psnr_db: 62.0, far_codes_one_in: 1_000_000 });
    for (precision, limits) in [bf16, int16] {
        if !level.precisions().any(|one| one == precision) {
            println!("SKIPPED: {} beside f32, for the CPU level {} has none", precision.name(), level.name());
            continue;
        }
        for (path, model) in [
            ("examples/image.png", "hasn-lite-x2"),
            ("examples/bbb-360p.mp4", "hasn-lite-x2"),
            ("examples/bbb-360p.mp4", "hasn-lite-x2-video"),
            ("examples/image.png", "hasn-x2"),
        ] {
            let name = format!("{} of {model} on {path}", precision.name());
            let exact = luma_codes(path, model, Precision::F32);
            let fast = luma_codes(path, model, precision);
            assert_eq!(exact.len(), fast.len());
            let differences = || exact.iter().zip(&fast).map(|(a, b)| a.abs_diff(*b));
            let far = differences().filter(|difference| *difference > 2).count();
            assert!(
                limits.far_codes_one_in * far <= exact.len(),
                "{name}: {far} of {} are off by more",
                exact.len()
            );
            let energy: f64 = differences().map(|difference| f64::from(difference).powi(2)).sum();
            let psnr_db = 10.0 * (255.0 * 255.0 * exact.len() as f64 / energy).log10();
            println!("{name}: {psnr_db:.1} dB from f32, {far} codes off by more than 2");
            assert!(psnr_db > limits.psnr_db, "{name}: {psnr_db} dB from f32");
            assert!(energy > 0.0, "{name}: it did not run");
        }
    }
}
