//! Access control lists, as Linux keeps them with a file: who may write besides its owner, its group and everybody.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const NAME: &std::ffi::CStr = c"system.posix_acl_access";

/// The longest extended attribute of a file.
const LONGEST: usize = 64 * 1024;

// The format: a version, then entries of a tag (16 bits), permissions (16 bits) and an id (32 bits), little-endian.
const VERSION: u32 = 2;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const WRITE: u16 = 0x02;

/// Somebody whom a list lets write, if its mask does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    User(u32),
    Group(u32),
    OwningGroup,
}

/// Whom the file's list lets write; nothing for a file without a list.
pub(super) fn writers(file: &Path) -> io::Result<Option<Vec<Writer>>> {
    let path = CString::new(file.as_os_str().as_bytes())?;
    let mut list = vec![0; LONGEST];
    // SAFETY: both names end with a zero byte, and the buffer has the length that is told.
    let length =
        unsafe { libc::lgetxattr(path.as_ptr(), NAME.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENODATA | libc::EOPNOTSUPP) => Ok(None),
            _ => Err(error),
        };
    };
    list.truncate(length);
    parsed(&list).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parsed(list: &[u8]) -> Option<Vec<Writer>> {
    let (version, entries) = list.split_first_chunk()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
        return None;
    }
    let writer = |&[a, b, c, d, id @ ..]: &[u8; 8]| {
        let id = u32::from_le_bytes(id);
        match (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]) & WRITE) {
            (_, 0) => None,
            (USER, _) => Some(Writer::User(id)),
            (GROUP, _) => Some(Writer::Group(id)),
            (OWNING_GROUP, _) => Some(Writer::OwningGroup),
            _ => None,
        }
    };
    Some(entries.iter().filter_map(writer).collect())
}

/// Gives a file a list of these tags, permissions and ids; false where the file system has none.
#[cfg(test)]
pub(super) fn set(file: &Path, entries: &[(u16, u16, u32)]) -> bool {
    let mut list = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend_from_slice(&tag.to_le_bytes());
        list.extend_from_slice(&permissions.to_le_bytes());
        list.extend_from_slice(&id.to_le_bytes());
    }
    let path = CString::new(file.as_os_str().as_bytes()).unwrap();
    // SAFETY: both names end with a zero byte, and the list has the length that is told.
    let answer =
        unsafe { libc::lsetxattr(path.as_ptr(), NAME.as_ptr(), list.as_ptr().cast(), list.len(), 0) };
    let error = io::Error::last_os_error();
    assert!(answer == 0 || error.raw_os_error() == Some(libc::EOPNOTSUPP), "{error}");
    answer == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(parsed(&[2, 0, 0, 0]), Some(vec![]));
        let list = [
            &[2, 0, 0, 0][..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[2, 0, 6, 0, 233, 3, 0, 0],
            &[2, 0, 4, 0, 234, 3, 0, 0],
            &[4, 0, 2, 0, 255, 255, 255, 255],
            &[8, 0, 7, 0, 0, 1, 0, 0],
            &[16, 0, 6, 0, 255, 255, 255, 255],
        ];
        let writers = vec![Writer::User(1001), Writer::OwningGroup, Writer::Group(256)];
        assert_eq!(parsed(&list.concat()), Some(writers));
        for strange in [&[][..], &[2, 0, 0], &[3, 0, 0, 0], &[2, 0, 0, 0, 1]] {
            assert_eq!(parsed(strange), None, "{strange:?}");
        }
    }
}
