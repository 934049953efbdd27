//! Reuses the result of the frame before for a frame that repeats it, without running the network.
//!
//! Video converted to another frame rate, animation and still screens repeat a frame sample by sample. It wraps an engine;
//! results are shared references to the same memory. The samples themselves are compared, which ends at the first row
//! that differs; a hash could confuse two frames.

use std::collections::VecDeque;

use super::spec::{Engine, NetworkId};
use crate::error::Result;
use crate::frame::Frame;

/// [`Engine`] that remembers the frame before.
pub(super) struct Reuse {
    engine: Box<dyn Engine>,
    /// The last LR frame that the engine was given, and its network.
    last: Option<(Frame, NetworkId)>,
    /// The last result of the engine.
    result: Option<Frame>,
    /// In order: LR frames that equal the previous one, `None` for a frame in the engine.
    in_flight: VecDeque<Option<Frame>>,
    reused: u64,
}

impl Reuse {
    pub(super) fn new(engine: Box<dyn Engine>) -> Reuse {
        Reuse { engine, last: None, result: None, in_flight: VecDeque::new(), reused: 0 }
    }
}

impl Engine for Reuse {
    fn depth(&self) -> usize {
        self.engine.depth()
    }

    fn submit(&mut self, lr: Frame, sr: Frame, network: NetworkId) -> Result<()> {
        let is_last = |(last, by): &(Frame, NetworkId)| *by == network && last.has_samples_of(&lr);
        if self.last.as_ref().is_some_and(is_last) {
            self.reused += 1;
            self.in_flight.push_back(Some(lr));
            return Ok(());
        }
        self.last = Some((lr.share(), network));
        self.engine.submit(lr, sr, network)?;
        self.in_flight.push_back(None);
        Ok(())
    }

    fn collect(&mut self) -> Result<Option<(Frame, Frame)>> {
        match self.in_flight.pop_front() {
            None => Ok(None),
            // The frame that it repeats was collected before it.
            Some(Some(lr)) => Ok(Some((
                lr,
                self.result.as_ref().expect("the first of the repeated frames has a result").share(),
            ))),
            Some(None) => {
                let (lr, sr) = self.engine.collect()?.expect("it was submitted");
                self.result = Some(sr.share());
                Ok(Some((lr, sr)))
            }
        }
    }

    fn reused(&self) -> u64 {
        self.reused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{frame_format, padded};

    /// Fills the SR frame with the first LR sample plus the network's number; three frames may be in flight.
    #[derive(Default)]
    struct Copies {
        pairs: VecDeque<(Frame, Frame)>,
        taken: u64,
    }

    impl Engine for Copies {
        fn depth(&self) -> usize {
            3
        }

        fn submit(&mut self, lr: Frame, mut sr: Frame, network: NetworkId) -> Result<()> {
            assert!(self.pairs.len() < 3);
            self.taken += 1;
            let sum = lr.buffer.plane(0)[0] + network.0 as u8;
            sr.buffer.plane_mut(0).fill(sum);
            self.pairs.push_back((lr, sr));
            Ok(())
        }

        fn collect(&mut self) -> Result<Option<(Frame, Frame)>> {
            Ok(self.pairs.pop_front())
        }

        fn reused(&self) -> u64 {
            self.taken
        }
    }

    /// Samples of value `first`, the last byte of the last plane `last`, and the padding of rows `between_rows`.
    fn frame(first: u8, last: u8, between_rows: u8) -> Frame {
        let frame_format = frame_format(6, 4, "yuv420p");
        let mut frame = padded(frame_format);
        for plane in 0..3 {
            let linesize = frame.buffer.linesize(plane);
            let (row_len, _) = frame_format.plane_size(plane);
            for row in frame.buffer.plane_mut(plane).chunks_mut(linesize) {
                row.fill(between_rows);
                row[..row_len].fill(first);
            }
        }
        *frame.buffer.plane_mut(2).last_mut().unwrap() = last;
        frame
    }

    #[test]
    fn each_frame_gets_its_own_result_and_the_engine_runs_only_on_new_frames() {
        let frames = [(1, 1, 0), (1, 1, 0), (1, 1, 0), (1, 2, 2), (1, 1, 0), (1, 1, 9), (3, 3, 0), (3, 3, 0)];
        let computed = 4;
        for depth in 1..=3 {
            let mut engine = Reuse::new(Box::new(Copies::default()));
            let mut results = Vec::new();
            let mut in_flight = 0;
            for (index, (first, last, between_rows)) in frames.into_iter().enumerate() {
                let mut lr = frame(first, last, between_rows);
                lr.time.index = index as u64;
                engine.submit(lr, Frame::new(frame_format(12, 8, "yuv420p")), NetworkId(0)).unwrap();
                in_flight += 1;
                if in_flight == depth {
                    results.push(engine.collect().unwrap().unwrap());
                    in_flight -= 1;
                }
            }
            while let Some(pair) = engine.collect().unwrap() {
                results.push(pair);
            }
            assert_eq!(results.len(), frames.len());
            for (index, (lr, sr)) in results.iter().enumerate() {
                assert_eq!(lr.time.index, index as u64);
                assert!(sr.buffer.plane(0).iter().all(|&code| code == frames[index].0), "frame {index}");
            }
            assert_eq!(engine.engine.reused(), computed, "frames given to the engine");
            assert_eq!(engine.reused(), frames.len() as u64 - computed);
        }
    }

    #[test]
    fn another_network_has_another_result() {
        let mut engine = Reuse::new(Box::new(Copies::default()));
        let mut results = Vec::new();
        for network in [0, 1, 1, 0] {
            let sr = Frame::new(frame_format(12, 8, "yuv420p"));
            engine.submit(frame(1, 1, 0), sr, NetworkId(network)).unwrap();
            results.push(engine.collect().unwrap().unwrap().1.buffer.plane(0)[0]);
        }
        assert_eq!(results, [1, 2, 2, 1]);
        assert_eq!(engine.reused(), 1);
    }
}
