//! Checks field tables without parsing them: they must be well-formed and nested no deeper than [`MAX_DEPTH`].
//!
//! The parser of `amq-protocol` recurses without a limit: a few kilobytes of nested arrays, sent before the log-in, would
//! abort the process. So every table is checked here before the parser gets it.

use thiserror::Error;

/// How deep tables and arrays may be nested.
pub(crate) const MAX_DEPTH: usize = 32;

/// Why a field table was refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadTable {
    #[error("tables nested deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("table ends early")]
    Truncated,
    #[error("unknown field type {0:#04x}")]
    UnknownType(u8),
    #[error("field name is not UTF-8")]
    BadName,
}

/// A cursor over untrusted bytes.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], BadTable> {
        let (head, tail) = self.bytes.split_at_checked(length).ok_or(BadTable::Truncated)?;
        self.bytes = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadTable> {
        let (head, tail) = self.bytes.split_first_chunk::<N>().ok_or(BadTable::Truncated)?;
        self.bytes = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, BadTable> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, BadTable> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, BadTable> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, BadTable> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn short_string(&mut self) -> Result<&'a str, BadTable> {
        let length = self.u8()?;
        std::str::from_utf8(self.take(length.into())?).map_err(|_| BadTable::BadName)
    }

    pub(crate) fn long_string(&mut self) -> Result<&'a [u8], BadTable> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// Skips one field table, length first.
    pub(crate) fn table(&mut self) -> Result<(), BadTable> {
        self.nested(b'F', 1)
    }

    fn nested(&mut self, kind: u8, depth: usize) -> Result<(), BadTable> {
        if depth > MAX_DEPTH {
            return Err(BadTable::TooDeep);
        }
        let mut inner = Reader::new(self.long_string()?);
        while !inner.is_empty() {
            if kind == b'F' {
                inner.short_string()?;
            }
            inner.value(depth)?;
        }
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<(), BadTable> {
        let length = match self.u8()? {
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'L' | b'l' | b'd' | b'T' => 8,
            b'V' => 0,
            b'S' | b'x' => self.u32()? as usize,
            kind @ (b'A' | b'F') => return self.nested(kind, depth + 1),
            other => return Err(BadTable::UnknownType(other)),
        };
        self.take(length).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table whose one field holds `depth - 1` arrays inside each other.
    fn nested(depth: usize) -> Vec<u8> {
        let mut value = Vec::new();
        for _ in 1..depth {
            let mut outer = vec![b'A'];
            outer.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            outer.extend(value);
            value = outer;
        }
        if value.is_empty() {
            value.push(b'V');
        }
        let mut table = vec![1, b'k'];
        table.extend(value);
        let mut bytes = u32::try_from(table.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(table);
        bytes
    }

    #[test]
    fn depth_is_limited_at_thirty_two() {
        assert_eq!(Reader::new(&nested(MAX_DEPTH)).table(), Ok(()));
        assert_eq!(Reader::new(&nested(MAX_DEPTH + 1)).table(), Err(BadTable::TooDeep));
        assert_eq!(Reader::new(&nested(5_000)).table(), Err(BadTable::TooDeep));
    }

    #[test]
    fn false_lengths_are_refused() {
        assert_eq!(Reader::new(&[0, 0, 0, 9, 1, b'k', b'V']).table(), Err(BadTable::Truncated));
        assert_eq!(Reader::new(&[0, 0, 0, 4, 1, b'k', b'S', 0]).table(), Err(BadTable::Truncated));
        assert_eq!(Reader::new(&[0, 0, 0, 3, 1, b'k', b'?']).table(), Err(BadTable::UnknownType(b'?')));
        assert_eq!(Reader::new(&[0, 0, 0, 3, 1, 0xff, b'V']).table(), Err(BadTable::BadName));
        assert_eq!(Reader::new(&[0, 0]).table(), Err(BadTable::Truncated));
    }
}
