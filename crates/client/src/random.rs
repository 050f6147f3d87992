//! The random numbers of this crate. No other module draws any.
#![allow(clippy::disallowed_methods)] // the one place that may draw them

/// A number in `0.0..1.0`, to spread retries.
pub(crate) fn fraction() -> f64 {
    rand::random()
}

/// A secret for one login.
pub(crate) fn secret() -> [u8; 32] {
    rand::random()
}
