//! Demux: files, streams and image sequences become packets.

pub(crate) mod access;
pub(crate) mod address;
pub(crate) mod avi;
pub(crate) mod input;
pub(crate) mod live;
pub(crate) mod matroska;
pub(crate) mod mpegts;
pub(crate) mod nested;
pub(crate) mod open;
pub(crate) mod probe;
pub(crate) mod quicktime;
pub(crate) mod quirks;
pub(crate) mod resolve;
pub(crate) mod select;
pub(crate) mod sequence;
pub(crate) mod structure;
pub(crate) mod tally;
pub(crate) mod timeline;
