//! Videos from file to file, by what a user relies on.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod alpha;
mod audio;
mod batch;
mod clip;
mod color;
mod color_docs;
mod color_table;
mod containers;
mod damage;
mod dry_run;
mod encoders;
mod failures;
mod filters;
mod frame_size;
mod frames;
mod journal;
mod light;
mod matrix;
mod memory;
mod paths;
mod precision;
mod presets;
mod preview;
mod price;
mod prompt;
mod reports;
mod reuse;
mod scan;
mod sequences;
mod side_data;
mod silence;
mod slow;
mod soak;
mod stalls;
mod stream_copy;
mod streams;
mod terminal;
mod timestamps;
mod verify;
mod walk;
