//! One error for each kind of wrong weights file.

use super::*;
use crate::model::catalogue;

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

const LITE: &[u8] = include_bytes!("../../models/hasn-lite-x2.safetensors");

/// The tensors and the metadata of the light model, for a test to change.
fn lite() -> (Tensors, HashMap<String, String>) {
    let metadata = SafeTensors::read_metadata(LITE).unwrap().1.metadata().clone().unwrap();
    let tensors = SafeTensors::deserialize(LITE).unwrap();
    let parts = |view: TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    (tensors.iter().map(|(name, view)| (name.to_owned(), parts(view))).collect(), metadata)
}

fn bytes(tensors: &Tensors, metadata: Option<HashMap<String, String>>) -> Vec<u8> {
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    safetensors::serialize(views, metadata).unwrap()
}

/// The error of the light model after `change`.
fn refusal(change: impl FnOnce(&mut Tensors, &mut HashMap<String, String>)) -> String {
    let (mut tensors, mut metadata) = lite();
    change(&mut tensors, &mut metadata);
    let line = parse("w.safetensors", &bytes(&tensors, Some(metadata))).unwrap_err().to_string();
    assert!(line.starts_with("w.safetensors: ") && !line.contains('\n'), "{line}");
    line
}

/// Replaces a tensor by f16 zeros of another shape.
fn reshape(tensors: &mut Tensors, name: &str, shape: &[usize]) {
    let data = vec![0; shape.iter().product::<usize>() * 2];
    tensors.insert(name.to_owned(), (Dtype::F16, shape.to_vec(), data));
}

#[test]
fn sizes_come_from_metadata_or_shapes_alike() {
    let (tensors, metadata) = lite();
    let stated = parse("w.safetensors", &bytes(&tensors, Some(metadata))).unwrap();
    let shown = parse("some/w.safetensors", &bytes(&tensors, None)).unwrap();
    assert_eq!(stated.sizes, shown.sizes);
    assert_eq!((stated.name.as_str(), shown.name.as_str()), ("hasn-lite-x2", "w"));
    let expected = Sizes {
        scale: 2,
        in_channels: 1,
        dim: 16,
        blocks: 2,
        mlp_channels: 32,
        esa_channels: 8,
        cab_channels: 8,
        ca_channels: 2,
    };
    assert_eq!(shown.sizes, expected);
    assert_eq!(shown.license, "");
    assert_eq!(stated.license, "MIT OR Apache-2.0");
}

#[test]
fn parameters_are_those_of_the_files() {
    for built_in in catalogue::ALL {
        let file = SafeTensors::deserialize(built_in.bytes).unwrap();
        let in_file: usize = file.iter().map(|(_, view)| view.shape().iter().product::<usize>()).sum();
        assert_eq!(parse(built_in.name, built_in.bytes).unwrap().sizes.parameters(), in_file);
    }
}

#[test]
fn f32_and_f16_files_give_the_same_weights() {
    let (mut tensors, _) = lite();
    let half = parse("w.safetensors", &bytes(&tensors, None)).unwrap();
    for (dtype, _, data) in tensors.values_mut() {
        let widen = |b: &[u8; 2]| f16::from_le_bytes(*b).to_f32().to_le_bytes();
        (*dtype, *data) = (Dtype::F32, data.as_chunks().0.iter().flat_map(widen).collect());
    }
    let full = parse("w.safetensors", &bytes(&tensors, None)).unwrap();
    assert_eq!(half.blocks[1].cab.conv_2.weight, full.blocks[1].cab.conv_2.weight);
    assert!(full.conv_1.weight.iter().any(|w| *w != 0.0));
}

#[test]
fn every_stated_size_must_agree_with_its_tensor() {
    let lies = [
        ("scale", "3", "upsampler.0.weight"),
        ("in_channels", "3", "conv_1.weight"),
        ("dim", "17", "conv_1.weight"),
        ("blocks", "3", "block_2.dwconv.conv.weight"),
        ("mlp_ratio", "3", "block_1.f1.conv.weight"),
        ("mlp_ratio", "18446744073709551615", "block_1.f1.conv.weight"),
        ("esa_channels", "16", "block_1.esa.conv1.weight"),
        ("cab_compress", "3", "block_1.cab.cab.0.weight"),
        ("cab_compress", "0", "block_1.cab.cab.0.weight"),
        ("ca_squeeze", "30", "block_1.cab.cab.3.attention.1.weight"),
        ("dim", "many", "conv_1.weight"),
    ];
    for (key, value, tensor) in lies {
        let line = refusal(|_, metadata| {
            metadata.insert(key.into(), value.into());
        });
        assert!(line.contains(&format!("tensor {tensor} disagrees")), "{line}");
        assert!(line.contains(&format!("{key} is `{value}`")), "{line}");
    }
}

#[test]
fn another_arch_is_refused() {
    let line = refusal(|_, metadata| {
        metadata.insert("arch".into(), "edsr".into());
    });
    assert!(line.contains("arch `edsr`"), "{line}");
}

#[test]
fn every_missing_tensor_is_named() {
    for name in lite().0.keys() {
        let line = refusal(|tensors, metadata| {
            tensors.remove(name);
            metadata.clear();
        });
        assert!(line.contains(&format!("tensor {name} is missing")), "{line}");
    }
}

#[test]
fn an_extra_tensor_is_named() {
    let line = refusal(|tensors, _| reshape(tensors, "block_1.f4.conv.bias", &[32]));
    assert!(line.contains("tensor block_1.f4.conv.bias is not part"), "{line}");
}

#[test]
fn a_block_left_out_is_named() {
    let line = refusal(|tensors, metadata| {
        metadata.clear();
        reshape(tensors, "block_4.ln.weight", &[16]);
    });
    assert!(line.contains("tensor block_3.") && line.contains("is missing"), "{line}");
}

#[test]
fn wrong_shapes_name_the_tensor_and_both_shapes() {
    for (name, shape) in [
        ("block_2.f1.conv.weight", vec![32, 15, 1, 1]),
        ("block_2.ln.bias", vec![17]),
        ("conv_2.weight", vec![16, 16, 5, 5]),
        ("block_1.dwconv.conv.weight", vec![16, 16, 7, 7]),
    ] {
        let line = refusal(|tensors, _| reshape(tensors, name, &shape));
        assert!(line.contains(&format!("tensor {name} has shape {shape:?}, expected is")), "{line}");
    }
}

#[test]
fn zero_and_absurd_sizes_are_refused() {
    for (name, shape) in [
        ("conv_1.weight", vec![0, 1, 3, 3]),
        ("block_1.f1.conv.weight", vec![4096, 16, 1, 1]),
        ("block_1.esa.conv1.weight", vec![8]),
    ] {
        let line = refusal(|tensors, _| reshape(tensors, name, &shape));
        assert!(line.contains(&format!("tensor {name} has shape {shape:?}")), "{line}");
    }
    let line = refusal(|tensors, _| reshape(tensors, "block_65.ln.bias", &[16]));
    assert!(line.contains("64 blocks"), "{line}");
    for upsampled in [1, 2, 5, 81] {
        let line = refusal(|tensors, _| reshape(tensors, "upsampler.0.weight", &[upsampled, 16, 3, 3]));
        assert!(line.contains(&format!("makes {upsampled} channels")), "{line}");
    }
}

#[test]
fn a_frame_of_two_channels_is_refused() {
    let line = refusal(|tensors, _| reshape(tensors, "conv_1.weight", &[16, 2, 3, 3]));
    assert!(line.contains("tensor conv_1.weight reads 2 channels"), "{line}");
}

#[test]
fn other_types_are_refused() {
    let line = refusal(|tensors, _| tensors.get_mut("block_1.g.conv.bias").unwrap().0 = Dtype::BF16);
    assert!(line.contains("tensor block_1.g.conv.bias is BF16"), "{line}");
}

#[test]
fn values_must_be_finite() {
    for value in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
        let line = refusal(|tensors, _| {
            tensors.get_mut("block_2.g.conv.bias").unwrap().2[4..6].copy_from_slice(&value.to_le_bytes());
        });
        assert!(line.contains(&format!("tensor block_2.g.conv.bias holds {value}")), "{line}");
    }
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    for length in [0, 5, 8, 100, LITE.len() / 2, LITE.len() - 1] {
        let line = parse("w.safetensors", &LITE[..length]).unwrap_err().to_string();
        assert!(line.contains("is truncated, or not a safetensors file"), "{length}: {line}");
    }
}

#[test]
fn other_files_are_refused() {
    let line = parse("w.safetensors", &[b'x'; 4096]).unwrap_err().to_string();
    assert!(line.contains("is not a safetensors file"), "{line}");
    for (name, bytes) in [("hasn_x4.pth", &[0x80, 2][..]), ("renamed.safetensors", b"PK\x03\x04rest")] {
        let line = parse(name, bytes).unwrap_err().to_string();
        assert!(line.contains("PyTorch") && line.contains("training/export.py"), "{line}");
    }
}
