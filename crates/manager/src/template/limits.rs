//! What one rendering may use. A template is an administrator's, but its loops run over what users send.

use std::time::Duration;

/// Steps of the template engine, of which one also pays for 64 bytes of data: at most some 64 MB in total.
pub(super) const STEPS: u64 = 1_000_000;
/// Bytes of the rendered text.
pub(super) const OUTPUT: usize = 1 << 20;
/// Files that one rendering includes.
pub(super) const FILES: usize = 100;
/// Levels of nested values.
pub(super) const NESTING: usize = 128;
/// Levels of templates and macros that call each other.
pub(super) const CALLS: usize = 100;
/// Seconds of a processor for schema and template together.
pub(super) const SECONDS: u64 = 5;
/// The same on the clock: the machine may be busy, and files may lie on a slow file system.
pub(super) const TIME: Duration = Duration::from_secs(10);
/// Memory beyond what the process has when it begins.
pub(super) const MEMORY: u64 = 256 << 20;
