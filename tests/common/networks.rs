//! Golden files, and models with weights by chance.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hasn::model::Model;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// All four golden files.
pub const GOLDEN: [&str; 4] = ["tiny_x2", "tiny_x3", "lite_x2", "paper_x4_rgb"];

/// A tensor of a golden file.
pub struct Tensor {
    /// Outermost first.
    pub shape: Vec<usize>,
    /// Dense.
    pub values: Vec<f32>,
}

/// A golden file: PyTorch's weights, an input and its output.
pub struct Golden {
    /// From the `w.*` tensors.
    pub model: Model,
    /// [in, H, W].
    pub input: Tensor,
    /// [in, sH, sW].
    pub output: Tensor,
    /// By module name; every `every`-th value of those above `whole_max`.
    pub activations: BTreeMap<String, Tensor>,
    /// 1 in a full file.
    pub every: usize,
    /// Activations of up to this number of values are complete.
    pub whole_max: usize,
}

/// The golden file of that name, from `HASN_GOLDEN`'s folder if it is set.
pub fn golden(name: &str) -> Golden {
    let kept = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
    let folder = std::env::var_os("HASN_GOLDEN").map_or_else(kept, PathBuf::from);
    let path = folder.join(format!("{name}.safetensors"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let metadata = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
    let stated = |key: &str| metadata.get(key).map(|text| text.parse::<usize>().unwrap());
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: TensorView<'_>| {
        assert_eq!(view.dtype(), Dtype::F32);
        let values = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Tensor { shape: view.shape().to_vec(), values }
    };
    let weights = file.iter().filter_map(|(name, view)| Some((name.strip_prefix("w.")?.to_owned(), view)));
    let weights = safetensors::serialize(weights, Some(metadata.clone())).unwrap();
    Golden {
        model: Model::parse(name, &weights).unwrap(),
        input: tensor(file.tensor("input").unwrap()),
        output: tensor(file.tensor("output").unwrap()),
        activations: file
            .iter()
            .filter_map(|(name, view)| Some((name.strip_prefix("act.")?.to_owned(), tensor(view))))
            .collect(),
        every: stated("every").unwrap_or(1),
        whole_max: stated("whole_max").unwrap_or(0),
    }
}

/// The largest difference, relative to the largest expected value. NaN anywhere gives NaN or infinity, so
/// compare with `<` and never with `>`.
pub fn relative_error(actual: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(actual.len(), expected.len());
    let largest = expected.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
    let difference = actual.iter().zip(expected).fold(0.0, |max: f32, (a, e)| {
        let d = (a - e).abs();
        if d.is_nan() { f32::INFINITY } else { max.max(d) }
    });
    // A ReLU may have left nothing but zeros.
    if difference == 0.0 { 0.0 } else { difference / largest }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same values on every machine.
pub struct Random(pub u64);

impl Random {
    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// In -1..1.
    pub fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Whether something that happens once in `in_n` times happens.
    pub fn once(&mut self, in_n: usize) -> bool {
        self.below(in_n) == 0
    }

    /// One of the values.
    pub fn choose<'a, T: ?Sized>(&mut self, values: &[&'a T]) -> &'a T {
        values[self.below(values.len())]
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Channel counts of a model by chance: in, C, M, E, R, Q, and scale and blocks.
pub struct Shape {
    /// in, C, M, E, R, Q.
    pub channels: [usize; 6],
    /// Of the output.
    pub scale: usize,
    /// At least 1.
    pub blocks: usize,
}

/// See [`random_weights`].
pub fn random_model(shape: &Shape, random: &mut Random) -> Model {
    Model::parse("random", &random_weights(shape, random)).unwrap()
}

/// A weights file by chance, its values as large as He's initialisation makes them, so that no signal vanishes or
/// explodes.
pub fn random_weights(shape: &Shape, random: &mut Random) -> Vec<u8> {
    let [input, c, m, e, r, q] = shape.channels;
    let mut convs = vec![
        ("conv_1".to_owned(), c, input, 3),
        ("conv_2".to_owned(), c, c, 3),
        ("upsampler.0".to_owned(), input * shape.scale * shape.scale, c, 3),
    ];
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    let mut fill = |shape: &[usize], centre: f32, size: f32| {
        let values =
            (0..shape.iter().product()).flat_map(|_: usize| (centre + size * random.signed()).to_le_bytes());
        (shape.to_vec(), values.collect())
    };
    for block in 1..=shape.blocks {
        let layers = [
            ("dwconv.conv", c, 1, 7),
            ("f1.conv", m, c, 1),
            ("f2.conv", m, c, 1),
            ("f3.conv", m, c, 1),
            ("g.conv", c, m, 1),
            ("dwconv2.conv", c, 1, 7),
            ("esa.conv1", e, m, 1),
            ("esa.conv2", e, e, 3),
            ("esa.conv3", e, e, 3),
            ("esa.conv4", m, e, 1),
            ("esa.conv_f", e, e, 1),
            ("cab.cab.0", r, c, 3),
            ("cab.cab.2", c, r, 3),
            ("cab.cab.3.attention.1", q, c, 1),
            ("cab.cab.3.attention.3", c, q, 1),
        ];
        convs.extend(layers.map(|(layer, o, i, side)| (format!("block_{block}.{layer}"), o, i, side)));
        tensors.insert(format!("block_{block}.ln.weight"), fill(&[c], 1.0, 0.5));
        tensors.insert(format!("block_{block}.ln.bias"), fill(&[c], 0.0, 0.5));
    }
    for (layer, outputs, inputs, side) in convs {
        // A uniform value in -1..1 has variance 1/3; He asks for 2 / fan-in.
        let size = (6.0 / (inputs * side * side) as f32).sqrt();
        tensors.insert(format!("{layer}.weight"), fill(&[outputs, inputs, side, side], 0.0, size));
        tensors.insert(format!("{layer}.bias"), fill(&[outputs], 0.0, 0.5));
    }
    let views = tensors.iter().map(|(name, (shape, data))| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}
