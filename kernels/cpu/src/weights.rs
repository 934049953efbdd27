//! Weights in the layout of the loops. The caller packs them and knows the network.

/// The packing of a level's dense maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packing {
    /// Channels per input word, or rows per word for a depthwise conv: 1 in f32, 2 in bf16 and int16.
    pub channels: usize,
    /// Maximum number of outputs computed together.
    pub outputs_max: usize,
    /// The same where the outputs of one row stay in registers until those of the next are done.
    pub outputs_waiting: usize,
    /// Maximum number of outputs of each of three maps computed together.
    pub outputs_of_three: usize,
    /// Groups have multiples of this number of outputs, since outputs may become words.
    pub outputs_multiple: usize,
    /// Whether words are int16 pairs, see [`Simd::INT16`](crate::simd::Simd::INT16).
    pub int16: bool,
}

impl Packing {
    /// The packing of the same level's f32 loops.
    pub fn exact(self) -> Packing {
        Packing { channels: 1, int16: false, ..self }
    }

    /// The packing of maps where the outputs of one row wait for those of the next.
    pub fn waiting(self) -> Packing {
        Packing { outputs_max: self.outputs_waiting, ..self }
    }

    /// The packing of each of three maps whose outputs are computed together.
    pub fn of_three(self) -> Packing {
        Packing { outputs_max: self.outputs_of_three, ..self }
    }

    /// Number of words for this number of channels.
    pub fn words(self, channels: usize) -> usize {
        channels.div_ceil(self.channels)
    }

    /// Number of computed outputs for this number of channels.
    pub fn outputs(self, channels: usize) -> usize {
        channels.next_multiple_of(self.outputs_multiple)
    }
}

/// A dense map, cut into groups of outputs that are computed together.
#[derive(Debug)]
pub struct Dense {
    /// Words of the input.
    pub words: usize,
    /// Width and height of the kernel.
    pub side: usize,
    /// Number of outputs of each group.
    pub groups: Vec<usize>,
    /// For each group `[words, side, side, outputs]`, each a word.
    pub weight: Vec<f32>,
    /// Factor that an int32 sum of each output is multiplied by.
    pub scale: Vec<f32>,
    /// Bias of all outputs, padding of the last word included.
    pub bias: Vec<f32>,
}

/// A group of outputs of a dense map.
#[derive(Clone, Copy)]
pub(crate) struct Group<'a> {
    /// Index of the first output.
    pub(crate) first: usize,
    /// [words, side, side, outputs].
    pub(crate) weight: &'a [f32],
    /// `[outputs]`.
    pub(crate) scale: &'a [f32],
    /// `[outputs]`.
    pub(crate) bias: &'a [f32],
}

impl Dense {
    /// Merges three maps with the same input and groups into one, whose groups hold the outputs of the three in turn.
    pub fn three(maps: [Dense; 3]) -> Dense {
        let Dense { words, side, ref groups, .. } = maps[0];
        assert!(maps.iter().all(|map| map.words == words && map.side == side && map.groups == *groups));
        let (mut weight, mut scale, mut bias) = (Vec::new(), Vec::new(), Vec::new());
        let mut of_groups = maps.each_ref().map(Dense::groups);
        for _ in groups {
            let parts = of_groups.each_mut().map(|groups| groups.next().expect("equal group counts"));
            let outputs = parts[0].bias.len();
            for tap in 0..words * side * side {
                weight.extend(parts.iter().flat_map(|part| &part.weight[tap * outputs..][..outputs]));
            }
            scale.extend(parts.iter().flat_map(|part| part.scale));
            bias.extend(parts.iter().flat_map(|part| part.bias));
        }
        Dense { words, side, groups: groups.iter().map(|outputs| 3 * outputs).collect(), weight, scale, bias }
    }

    /// The groups, in the order of outputs.
    #[inline(always)]
    pub(crate) fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        let (mut first, mut rest) = (0, &*self.weight);
        self.groups.iter().map(move |&outputs| {
            let weight;
            (weight, rest) = rest.split_at(outputs * self.words * self.side * self.side);
            let outputs = first..first + outputs;
            let group = Group {
                first,
                weight,
                scale: &self.scale[outputs.clone()],
                bias: &self.bias[outputs.clone()],
            };
            first = outputs.end;
            group
        })
    }
}

/// A depthwise 7x7 conv. An input word is a pixel in f32, or the same pixel of an even row and of the next row.
#[derive(Debug)]
pub struct Depthwise {
    /// `[C]` of rows of taps: seven rows, or four pairs for outputs of even rows and four for those of odd rows.
    pub taps: Vec<[[f32; 7]; 8]>,
    /// `[C]`: factor that an int32 sum is multiplied by.
    pub scale: Vec<f32>,
    /// `[C]`.
    pub bias: Vec<f32>,
}

/// The maps from the normalised tensor to the gated one, all 1x1.
#[derive(Debug)]
pub struct Gate {
    /// `f1`, `f2` and `f3`, C -> M each, see [`Dense::three`].
    pub f: Dense,
    /// `conv_f` after `conv1` after `f3`: C -> E.
    pub conv_f: Dense,
    /// E -> M, scaled for the sigmoid that follows.
    pub conv4: Dense,
    /// M -> C.
    pub g: Dense,
}
