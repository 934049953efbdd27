//! Disks, drives and file systems that fail at any moment: a run either ends with the output of an undisturbed one, or
//! with an error after which the same command, without the fault, gives that output.
//!
//! A library that is loaded before the C library fails the calls on files (`preload.c`). The sweep records the calls of
//! a short run and has every one fail in every way that fits it, once and for good.
//!
//! - `HASN_FAULT_CALLS`: faults of each sweep, chosen by chance, or `all`;
//! - `HASN_FAULT_PAIRS`: runs with a fault and a kill;
//! - `HASN_FAULT_KILLS`: kills on each file system;
//! - `HASN_FAULT_SEED`: the seed of what is chosen by chance, to repeat it;
//! - `HASN_FAULT`: one fault in the words of `preload.c`, which is tried instead of those of the sweep.

#[path = "../common/mod.rs"]
mod common;

mod cases;
mod file_systems;
mod kills;
mod mounts;
mod outcomes;
mod pipe;
mod preload;
mod relay;
mod scenarios;
mod sweep;
mod trial;
