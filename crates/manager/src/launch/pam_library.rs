//! The functions of `libpam.so.0`, loaded at run time.

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

/// The file that every distribution with Linux-PAM has.
const FILE: &str = "libpam.so.0";

pub(super) const SUCCESS: c_int = 0;
pub(super) const OUT_OF_MEMORY: c_int = 5;
pub(super) const CONVERSATION_ERROR: c_int = 19;
pub(super) const ESTABLISH_CREDENTIALS: c_int = 0x2;
pub(super) const DELETE_CREDENTIALS: c_int = 0x4;
pub(super) const PROMPT_ECHO_OFF: c_int = 1;
pub(super) const PROMPT_ECHO_ON: c_int = 2;

/// `pam_handle_t`: the library's own.
pub(super) enum Handle {}

/// `struct pam_message`.
#[repr(C)]
pub(super) struct Message {
    pub(super) style: c_int,
    pub(super) text: *const c_char,
}

/// `struct pam_response`.
#[repr(C)]
pub(super) struct Response {
    pub(super) text: *mut c_char,
    pub(super) code: c_int,
}

/// `struct pam_conv`.
#[repr(C)]
pub(super) struct Conversation {
    pub(super) function:
        unsafe extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int,
    pub(super) data: *mut c_void,
}

type WithFlags = unsafe extern "C" fn(*mut Handle, c_int) -> c_int;

pub(super) struct Library {
    pub(super) start:
        unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *mut *mut Handle) -> c_int,
    pub(super) acct_mgmt: WithFlags,
    pub(super) setcred: WithFlags,
    pub(super) open_session: WithFlags,
    pub(super) close_session: WithFlags,
    pub(super) end: WithFlags,
    pub(super) getenvlist: unsafe extern "C" fn(*mut Handle) -> *mut *mut c_char,
    pub(super) strerror: unsafe extern "C" fn(*mut Handle, c_int) -> *const c_char,
}

/// Why PAM can't be used on this machine.
#[derive(Debug, thiserror::Error)]
#[error(
    "PAM is enabled, but its library {FILE} can't be loaded: {0}. Install it (Debian: libpam0g, Red Hat: pam), or set `pam.enable: false`"
)]
pub struct PamMissing(libloading::Error);

impl Library {
    /// Loads the library, once; it stays loaded.
    pub(super) fn load() -> Result<&'static Self, PamMissing> {
        static LOADED: OnceLock<Library> = OnceLock::new();
        if let Some(library) = LOADED.get() {
            return Ok(library);
        }
        let library = Self::open().map_err(PamMissing)?;
        Ok(LOADED.get_or_init(|| library))
    }

    fn open() -> Result<Self, libloading::Error> {
        // SAFETY: the system's own library, whose initialisers every login runs. The functions are declared as in
        // `security/pam_appl.h` and `pam_modules.h`; the library is never unloaded, so they stay valid.
        unsafe {
            let library = std::mem::ManuallyDrop::new(libloading::Library::new(FILE)?);
            Ok(Self {
                start: *library.get(b"pam_start\0")?,
                acct_mgmt: *library.get(b"pam_acct_mgmt\0")?,
                setcred: *library.get(b"pam_setcred\0")?,
                open_session: *library.get(b"pam_open_session\0")?,
                close_session: *library.get(b"pam_close_session\0")?,
                end: *library.get(b"pam_end\0")?,
                getenvlist: *library.get(b"pam_getenvlist\0")?,
                strerror: *library.get(b"pam_strerror\0")?,
            })
        }
    }
}

/// Whether PAM can be used: a manager with `pam.enable` asks at its start.
pub fn check_pam() -> Result<(), PamMissing> {
    Library::load().map(drop)
}

/// The names of `security/_pam_types.h`.
pub(super) fn code_name(code: c_int) -> &'static str {
    const NAMES: [&str; 32] = [
        "PAM_SUCCESS",
        "PAM_OPEN_ERR",
        "PAM_SYMBOL_ERR",
        "PAM_SERVICE_ERR",
        "PAM_SYSTEM_ERR",
        "PAM_BUF_ERR",
        "PAM_PERM_DENIED",
        "PAM_AUTH_ERR",
        "PAM_CRED_INSUFFICIENT",
        "PAM_AUTHINFO_UNAVAIL",
        "PAM_USER_UNKNOWN",
        "PAM_MAXTRIES",
        "PAM_NEW_AUTHTOK_REQD",
        "PAM_ACCT_EXPIRED",
        "PAM_SESSION_ERR",
        "PAM_CRED_UNAVAIL",
        "PAM_CRED_EXPIRED",
        "PAM_CRED_ERR",
        "PAM_NO_MODULE_DATA",
        "PAM_CONV_ERR",
        "PAM_AUTHTOK_ERR",
        "PAM_AUTHTOK_RECOVERY_ERR",
        "PAM_AUTHTOK_LOCK_BUSY",
        "PAM_AUTHTOK_DISABLE_AGING",
        "PAM_TRY_AGAIN",
        "PAM_IGNORE",
        "PAM_ABORT",
        "PAM_AUTHTOK_EXPIRED",
        "PAM_MODULE_UNKNOWN",
        "PAM_BAD_ITEM",
        "PAM_CONV_AGAIN",
        "PAM_INCOMPLETE",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("unknown")
}
