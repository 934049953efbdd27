//! From the bytes of a safetensors file to a checked [`Model`].
//!
//! The sizes are derived from the tensors' shapes and compared with the metadata; then every expected tensor is removed
//! from the file's list with its shape checked, and none may remain. Every error is one line that names the file and the
//! tensor.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::f16;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};

use super::weights::{BlockWeights, CabWeights, Conv, EsaWeights, LayerNorm, Model, Sizes};
use crate::error::{Error, ErrorKind, Result};

/// The paper has 52 channels, 156 in the wide maps and 6 blocks. Sizes far above are refused before memory is allocated.
const CHANNELS_MAX: usize = 2048;
/// See [`CHANNELS_MAX`].
const BLOCKS_MAX: usize = 64;
/// No network of a larger scale is trained, and an x8 frame of UHD is 33 k pixels wide.
const SCALE_MAX: usize = 8;

/// The largest sizes that are accepted make a network of some 500 MB; a larger file is refused before it is read.
const FILE_BYTES_MAX: u64 = 1 << 30;

impl Model {
    /// Reads and checks a weights file.
    pub fn load(path: &Path) -> Result<Model> {
        let name = path.display().to_string();
        let unreadable = |e: std::io::Error| {
            Error::new(&name, format!("cannot be read: {e}"), "give a readable safetensors file")
                .with_kind(e.kind().into())
                .with_source(e)
        };
        let bytes_len = std::fs::metadata(path).map_err(unreadable)?.len();
        if bytes_len > FILE_BYTES_MAX {
            return Err(Error::new(
                &name,
                format!("is {} MB, no HASN has weights of that size", bytes_len >> 20),
                "give the safetensors file of a HASN",
            ));
        }
        Model::parse(&name, &std::fs::read(path).map_err(unreadable)?)
    }

    /// Parses and checks the bytes of a weights file; `source_name` is its name in errors.
    pub fn parse(source_name: &str, bytes: &[u8]) -> Result<Model> {
        parse(source_name, bytes)
    }
}

fn parse(source_name: &str, bytes: &[u8]) -> Result<Model> {
    let extension = Path::new(source_name).extension().and_then(|e| e.to_str()).unwrap_or("");
    // A `.pth` is a zip archive; older ones are a bare pickle (0x80, protocol).
    if extension == "pth" || extension == "pt" || bytes.starts_with(b"PK\x03\x04") {
        return Err(Error::new(
            source_name,
            "is a PyTorch checkpoint",
            "convert it to safetensors with training/export.py",
        )
        .with_kind(ErrorKind::Unsupported));
    }
    let not_weights = |e: SafeTensorError| container_error(source_name, e);
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(not_weights)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let mut file = File {
        name: source_name,
        tensors: SafeTensors::deserialize(bytes).map_err(not_weights)?.tensors().into_iter().collect(),
    };
    let sizes = file.sizes()?;
    file.check_metadata(&metadata, &sizes)?;
    let model = Model {
        name: metadata.get("name").cloned().unwrap_or_else(|| stem(source_name)),
        trained: metadata.get("trained").cloned().unwrap_or_default(),
        license: metadata.get("license").cloned().unwrap_or_default(),
        sizes,
        conv_1: file.conv("conv_1", sizes.dim, sizes.in_channels, 3)?,
        blocks: (1..=sizes.blocks).map(|i| file.block(i, &sizes)).collect::<Result<_>>()?,
        conv_2: file.conv("conv_2", sizes.dim, sizes.dim, 3)?,
        upsampler: file.conv("upsampler.0", sizes.upsampler_channels(), sizes.dim, 3)?,
    };
    match file.tensors.keys().next() {
        None => Ok(model),
        Some(extra) => Err(file.refuse(extra, "is not part of a HASN")),
    }
}

/// The error for bytes that are not a complete safetensors file.
fn container_error(source_name: &str, error: SafeTensorError) -> Error {
    let (kind, problem) = match &error {
        SafeTensorError::MetadataIncompleteBuffer
        | SafeTensorError::InvalidHeaderLength
        | SafeTensorError::HeaderTooSmall => {
            (ErrorKind::Damaged, format!("is truncated, or not a safetensors file ({error})"))
        }
        other => (ErrorKind::InvalidInput, format!("is not a safetensors file ({other})")),
    };
    Error::new(source_name, problem, "fetch or export it again").with_kind(kind).with_source(error)
}

fn stem(source_name: &str) -> String {
    Path::new(source_name).file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned())
}

/// The tensors of a file that have not been read yet.
struct File<'a> {
    name: &'a str,
    tensors: BTreeMap<String, TensorView<'a>>,
}

impl File<'_> {
    fn refuse(&self, tensor: &str, problem: impl std::fmt::Display) -> Error {
        Error::new(
            self.name,
            format!("tensor {tensor} {problem}"),
            "give the weights of a HASN as training/export.py writes them",
        )
    }

    /// Derives every size from the shapes, which every file has; metadata may be missing.
    fn sizes(&self) -> Result<Sizes> {
        let first = self.outer_two("conv_1.weight")?;
        let [mlp_channels, _] = self.outer_two("block_1.f1.conv.weight")?;
        let [esa_channels, _] = self.outer_two("block_1.esa.conv1.weight")?;
        let [cab_channels, _] = self.outer_two("block_1.cab.cab.0.weight")?;
        let [ca_channels, _] = self.outer_two("block_1.cab.cab.3.attention.1.weight")?;
        let [upsampled, _] = self.outer_two("upsampler.0.weight")?;
        let [dim, in_channels] = first;
        if in_channels != 1 && in_channels != 3 {
            return Err(self.refuse(
                "conv_1.weight",
                format!("reads {in_channels} channels, a frame has 1 (luma) or 3 (RGB)"),
            ));
        }
        let scale = (upsampled / in_channels).isqrt();
        if scale * scale * in_channels != upsampled || !(2..=SCALE_MAX).contains(&scale) {
            return Err(self.refuse(
                "upsampler.0.weight",
                format!("makes {upsampled} channels, which is not {in_channels} x 2² to {SCALE_MAX}²"),
            ));
        }
        let blocks = self.blocks()?;
        Ok(Sizes { scale, in_channels, dim, blocks, mlp_channels, esa_channels, cab_channels, ca_channels })
    }

    /// The highest block number of any tensor; a missing block in between is detected when it is read.
    fn blocks(&self) -> Result<usize> {
        let number = |name: &str| name.strip_prefix("block_")?.split_once('.')?.0.parse::<usize>().ok();
        let blocks = self.tensors.keys().filter_map(|name| number(name)).max().unwrap_or(0);
        if blocks > BLOCKS_MAX {
            return Err(self.refuse(
                &format!("block_{blocks}.*"),
                format!("is beyond the {BLOCKS_MAX} blocks a HASN may have"),
            ));
        }
        Ok(blocks)
    }

    /// The two outer dimensions of a conv's weight, both within limits.
    fn outer_two(&self, tensor: &str) -> Result<[usize; 2]> {
        let view = self.tensors.get(tensor).ok_or_else(|| self.refuse(tensor, "is missing"))?;
        let &[outputs, inputs, _, _] = view.shape() else {
            return Err(self.refuse(tensor, format!("has shape {:?}, a conv has four sizes", view.shape())));
        };
        match (1..=CHANNELS_MAX).contains(&outputs) && (1..=CHANNELS_MAX).contains(&inputs) {
            true => Ok([outputs, inputs]),
            false => Err(self.refuse(
                tensor,
                format!("has shape {:?}, channels must be 1 to {CHANNELS_MAX}", view.shape()),
            )),
        }
    }

    /// Compares each size in the metadata with the tensor that shows it.
    fn check_metadata(&self, metadata: &HashMap<String, String>, sizes: &Sizes) -> Result<()> {
        if let Some(arch) = metadata.get("arch").filter(|arch| *arch != "hasn") {
            return Err(Error::new(
                self.name,
                format!("holds a network of arch `{arch}`"),
                "give the weights of a HASN",
            ));
        }
        let dim = sizes.dim;
        let last_block = format!("block_{}.dwconv.conv.weight", sizes.blocks);
        let same = |stated: usize| Some(stated);
        let times_dim = |ratio: usize| ratio.checked_mul(dim);
        let floored = |divisor: usize| dim.checked_div(divisor);
        let floored_above_0 = |divisor: usize| dim.checked_div(divisor).map(|q| q.max(1));
        type Implied<'f> = &'f dyn Fn(usize) -> Option<usize>;
        let rows: [(&str, &str, usize, Implied<'_>); 8] = [
            ("scale", "upsampler.0.weight", sizes.scale, &same),
            ("in_channels", "conv_1.weight", sizes.in_channels, &same),
            ("dim", "conv_1.weight", dim, &same),
            ("blocks", &last_block, sizes.blocks, &same),
            ("mlp_ratio", "block_1.f1.conv.weight", sizes.mlp_channels, &times_dim),
            ("esa_channels", "block_1.esa.conv1.weight", sizes.esa_channels, &same),
            ("cab_compress", "block_1.cab.cab.0.weight", sizes.cab_channels, &floored),
            ("ca_squeeze", "block_1.cab.cab.3.attention.1.weight", sizes.ca_channels, &floored_above_0),
        ];
        for (key, witness, found, implied) in rows {
            let Some(text) = metadata.get(key) else { continue };
            if text.parse().ok().and_then(implied) != Some(found) {
                return Err(self.refuse(
                    witness,
                    format!("disagrees with the metadata: {key} is `{text}`, the tensors show {found}"),
                ));
            }
        }
        Ok(())
    }

    fn block(&mut self, index: usize, sizes: &Sizes) -> Result<BlockWeights> {
        let Sizes { dim: c, mlp_channels: m, esa_channels: e, cab_channels: r, ca_channels: q, .. } = *sizes;
        let mut conv = |layer: &str, outputs, inputs, side| {
            self.conv(&format!("block_{index}.{layer}"), outputs, inputs, side)
        };
        let esa = EsaWeights {
            conv1: conv("esa.conv1", e, m, 1)?,
            conv2: conv("esa.conv2", e, e, 3)?,
            conv3: conv("esa.conv3", e, e, 3)?,
            conv4: conv("esa.conv4", m, e, 1)?,
            conv_f: conv("esa.conv_f", e, e, 1)?,
        };
        let cab = CabWeights {
            conv_0: conv("cab.cab.0", r, c, 3)?,
            conv_2: conv("cab.cab.2", c, r, 3)?,
            attention_1: conv("cab.cab.3.attention.1", q, c, 1)?,
            attention_3: conv("cab.cab.3.attention.3", c, q, 1)?,
        };
        Ok(BlockWeights {
            dwconv: conv("dwconv.conv", c, 1, 7)?,
            f1: conv("f1.conv", m, c, 1)?,
            f2: conv("f2.conv", m, c, 1)?,
            f3: conv("f3.conv", m, c, 1)?,
            g: conv("g.conv", c, m, 1)?,
            dwconv2: conv("dwconv2.conv", c, 1, 7)?,
            ln: LayerNorm {
                weight: self.values(&format!("block_{index}.ln.weight"), &[c])?,
                bias: self.values(&format!("block_{index}.ln.bias"), &[c])?,
            },
            esa,
            cab,
        })
    }

    fn conv(&mut self, layer: &str, outputs: usize, inputs: usize, side: usize) -> Result<Conv> {
        Ok(Conv {
            outputs,
            inputs,
            side,
            weight: self.values(&format!("{layer}.weight"), &[outputs, inputs, side, side])?,
            bias: self.values(&format!("{layer}.bias"), &[outputs])?,
        })
    }

    /// Removes a tensor from the list and returns its values in f32, with their shape and finiteness checked.
    fn values(&mut self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let view = self.tensors.remove(tensor).ok_or_else(|| self.refuse(tensor, "is missing"))?;
        if view.shape() != shape {
            return Err(self.refuse(tensor, format!("has shape {:?}, expected is {shape:?}", view.shape())));
        }
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => view.data().as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            other => return Err(self.refuse(tensor, format!("is {other:?}, expected is F32 or F16"))),
        };
        match values.iter().find(|value| !value.is_finite()) {
            None => Ok(values),
            Some(value) => Err(self.refuse(tensor, format!("holds {value}"))),
        }
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
