//! Frames: bytes to methods and content, and back, bounded before anything is believed.

pub(crate) mod properties;
pub(crate) mod table;
