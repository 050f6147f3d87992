//! Reads from the raw properties of a message what the broker must know, and checks the rest without parsing it.

use thiserror::Error;

use super::table::{BadTable, Reader};

/// What the broker must know of a message's properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) persistent: bool,
    /// Milliseconds.
    pub(crate) expiration: Option<u64>,
    /// Where the user id is in the raw properties: offset and length.
    pub(crate) user_id: Option<(u32, u8)>,
}

/// Why the properties of a message were refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    #[error(transparent)]
    Table(#[from] BadTable),
    #[error("bytes after the last property")]
    Trailing,
    #[error("unknown property flags {0:#06x}")]
    UnknownFlags(u16),
    #[error("invalid expiration: not a number of milliseconds")]
    BadExpiration,
    #[error("invalid delivery mode {0}")]
    BadDeliveryMode(u8),
}

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const TYPE: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;

/// The longest time to live: 2^32 - 1 milliseconds, as in RabbitMQ.
pub(crate) const MAX_TTL: u64 = u32::MAX as u64;

/// Reads raw properties: flags and list.
pub(crate) fn summarize(raw: &[u8]) -> Result<Summary, Malformed> {
    let mut reader = Reader::new(raw);
    let mut summary = Summary::default();
    let flags = reader.u16()?;
    if flags & 0b11 != 0 {
        return Err(Malformed::UnknownFlags(flags));
    }
    if flags == 0 {
        return if reader.is_empty() { Ok(summary) } else { Err(Malformed::Trailing) };
    }
    let has = |flag| flags & flag != 0;
    for flag in [CONTENT_TYPE, CONTENT_ENCODING] {
        if has(flag) {
            reader.short_string()?;
        }
    }
    if has(HEADERS) {
        reader.table()?;
    }
    if has(DELIVERY_MODE) {
        summary.persistent = match reader.u8()? {
            1 => false,
            2 => true,
            other => return Err(Malformed::BadDeliveryMode(other)),
        };
    }
    if has(PRIORITY) {
        reader.u8()?;
    }
    for flag in [CORRELATION_ID, REPLY_TO] {
        if has(flag) {
            reader.short_string()?;
        }
    }
    if has(EXPIRATION) {
        let text = reader.short_string()?;
        let digits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        let value = text.parse().ok().filter(|it| digits && *it <= MAX_TTL);
        summary.expiration = Some(value.ok_or(Malformed::BadExpiration)?);
    }
    if has(MESSAGE_ID) {
        reader.short_string()?;
    }
    if has(TIMESTAMP) {
        reader.u64()?;
    }
    if has(TYPE) {
        reader.short_string()?;
    }
    if has(USER_ID) {
        let user = reader.short_string()?;
        let offset = user.as_ptr() as usize - raw.as_ptr() as usize;
        summary.user_id = Some((u32::try_from(offset).unwrap_or(0), u8::try_from(user.len()).unwrap_or(0)));
    }
    for flag in [APP_ID, CLUSTER_ID] {
        if has(flag) {
            reader.short_string()?;
        }
    }
    if reader.is_empty() { Ok(summary) } else { Err(Malformed::Trailing) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amq_protocol::protocol::BasicProperties;
    use amq_protocol::protocol::basic::gen_properties;
    use amq_protocol::types::{AMQPValue, FieldTable};

    fn raw(properties: &BasicProperties) -> Vec<u8> {
        gen_properties::<Vec<u8>>(properties)(Vec::new().into()).unwrap().into_inner().0
    }

    #[test]
    fn reads_what_it_needs_among_all_properties() {
        let mut headers = FieldTable::default();
        headers.insert("k".into(), AMQPValue::LongString("v".into()));
        let all = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("utf-8".into())
            .with_headers(headers)
            .with_delivery_mode(2)
            .with_priority(3)
            .with_correlation_id("c".into())
            .with_reply_to("r".into())
            .with_expiration("10000".into())
            .with_message_id("m".into())
            .with_timestamp(7)
            .with_type("t".into())
            .with_user_id("somebody".into())
            .with_app_id("a".into())
            .with_cluster_id("x".into());
        let raw = raw(&all);
        let summary = summarize(&raw).unwrap();
        assert!(summary.persistent);
        assert_eq!(summary.expiration, Some(10_000));
        let (offset, length) = summary.user_id.unwrap();
        assert_eq!(&raw[offset as usize..][..length.into()], b"somebody");
        for cut in 2..raw.len() {
            assert!(summarize(&raw[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn malformed_properties_are_refused() {
        assert_eq!(summarize(&[0, 0]), Ok(Summary::default()));
        assert_eq!(summarize(&[0, 0, 1]), Err(Malformed::Trailing));
        assert_eq!(summarize(&[0, 1]), Err(Malformed::UnknownFlags(1)));
        for mode in [0, 3, 255] {
            let properties = BasicProperties::default().with_delivery_mode(mode);
            assert_eq!(summarize(&raw(&properties)), Err(Malformed::BadDeliveryMode(mode)));
        }
        for bad in ["", "-1", "soon", "4294967296", "+5"] {
            let properties = BasicProperties::default().with_expiration(bad.into());
            assert_eq!(summarize(&raw(&properties)), Err(Malformed::BadExpiration), "{bad:?}");
        }
    }
}
