//! Weights as the loops read them; whoever packs them knows the network.

/// How a level wants its dense maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packing {
    /// Channels of a word that is read, or rows where a depthwise conv reads it: 1 in f32, 2 in bf16 and int16.
    pub channels: usize,
    /// Outputs that are made together, at most.
    pub outputs_max: usize,
    /// The same where those of one row wait in registers for those of another.
    pub outputs_waiting: usize,
    /// Outputs of each of three maps that are made together, at most.
    pub outputs_of_three: usize,
    /// Outputs are made in whole multiples of it, for they may become words.
    pub outputs_multiple: usize,
    /// Words are whole numbers, see [`Simd::WHOLE`](crate::simd::Simd::WHOLE).
    pub whole: bool,
}

impl Packing {
    /// The same level's loops over f32.
    pub fn exact(self) -> Packing {
        Packing { channels: 1, whole: false, ..self }
    }

    /// For maps of which the outputs of one row wait for those of another.
    pub fn waiting(self) -> Packing {
        Packing { outputs_max: self.outputs_waiting, ..self }
    }

    /// For each of three maps whose outputs are made together.
    pub fn of_three(self) -> Packing {
        Packing { outputs_max: self.outputs_of_three, ..self }
    }

    /// Words that hold so many channels.
    pub fn words(self, channels: usize) -> usize {
        channels.div_ceil(self.channels)
    }

    /// Outputs that are made where so many are wanted.
    pub fn outputs(self, channels: usize) -> usize {
        channels.next_multiple_of(self.outputs_multiple)
    }
}

/// A dense map, cut into groups of outputs that are made together.
#[derive(Debug)]
pub struct Dense {
    /// Of the input.
    pub words: usize,
    /// Of its taps, in width and height.
    pub side: usize,
    /// How many outputs each has.
    pub groups: Vec<usize>,
    /// For each group `[words, side, side, outputs]`, each a word.
    pub weight: Vec<f32>,
    /// What a whole sum of each output is multiplied by.
    pub scale: Vec<f32>,
    /// Of all outputs, those that fill up the last word too.
    pub bias: Vec<f32>,
}

/// A few outputs of a dense map.
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
    /// Three maps of the same input and cut alike become one: its groups have as many outputs of each, one map's after
    /// another's.
    pub fn three(maps: [Dense; 3]) -> Dense {
        let Dense { words, side, ref groups, .. } = maps[0];
        assert!(maps.iter().all(|map| map.words == words && map.side == side && map.groups == *groups));
        let (mut weight, mut scale, mut bias) = (Vec::new(), Vec::new(), Vec::new());
        let mut of_groups = maps.each_ref().map(Dense::groups);
        for _ in groups {
            let parts = of_groups.each_mut().map(|groups| groups.next().expect("as many groups"));
            let outputs = parts[0].bias.len();
            for tap in 0..words * side * side {
                weight.extend(parts.iter().flat_map(|part| &part.weight[tap * outputs..][..outputs]));
            }
            scale.extend(parts.iter().flat_map(|part| part.scale));
            bias.extend(parts.iter().flat_map(|part| part.bias));
        }
        Dense { words, side, groups: groups.iter().map(|outputs| 3 * outputs).collect(), weight, scale, bias }
    }

    /// In the order of outputs.
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

/// A depthwise 7x7. A word of what it reads is a pixel in f32, or the same of an even row and of the next.
#[derive(Debug)]
pub struct Depthwise {
    /// `[C]` of rows of taps: the seven, or four pairs for outputs of even rows and four for those of odd rows.
    pub taps: Vec<[[f32; 7]; 8]>,
    /// `[C]`, what a whole sum is multiplied by.
    pub scale: Vec<f32>,
    /// `[C]`.
    pub bias: Vec<f32>,
}

/// What makes the gated tensor out of the normalised one, all 1x1.
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
