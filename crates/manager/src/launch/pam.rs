//! Asks PAM: may this user be here (account), with which credentials, in which session.
//!
//! The library is loaded at run time, so that a machine without PAM needs none. Phases that authenticate or change
//! passwords are never called: who the submitter is was proven to the service.
//!
//! ```text
//! pam_start → pam_acct_mgmt → setgroups → pam_setcred(ESTABLISH) → pam_open_session → pam_getenvlist
//!        …the user endpoint runs…
//! pam_close_session → pam_setcred(DELETE) → pam_end
//! ```
//! Everything here runs as root. Errors go to the administrator; the submitter reads "see your system administrator".

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use super::pam_library::{
    CONVERSATION_ERROR, Conversation, DELETE_CREDENTIALS, ESTABLISH_CREDENTIALS, Handle, Library, Message,
    OUT_OF_MEMORY, PROMPT_ECHO_OFF, PROMPT_ECHO_ON, Response, SUCCESS, code_name,
};
use super::privileges;
use super::stage::{Failure, Problem, Stage, bounded};
use super::user::LocalUser;

/// Where PAM looks for a service's file, on the distributions.
const SERVICE_DIRECTORIES: [&str; 3] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d"];

/// How many of a module's words are kept for the log.
const WORDS_LIMIT: usize = 20;

/// An open session of one user. It must be closed once, by [`Session::close`].
pub(super) struct Session {
    library: &'static Library,
    handle: *mut Handle,
    /// What modules said through the conversation: from a box, freed at the end of the session. PAM keeps the address.
    words: *mut Vec<String>,
    /// Whether credentials were established, and are to be deleted.
    has_credentials: bool,
}

/// Checks the account, sets the groups, establishes credentials and opens the session, in this order.
pub(super) fn open(service: &str, user: &LocalUser) -> Result<Session, Failure> {
    let denied = |text: String| Problem::denied(text).at(Stage::HostAuthentication);
    let library = Library::load().map_err(|missing| denied(missing.to_string()))?;
    find_service(service).map_err(denied)?;
    let mut session = Session::begin(library, service, user).map_err(denied)?;
    match session.establish(user) {
        Ok(()) => Ok(session),
        Err(failure) => {
            session.end(SUCCESS);
            Err(failure)
        }
    }
}

/// PAM treats a service without a file as the service `other`, which some sites leave open. Here it is refused.
fn find_service(service: &str) -> Result<(), String> {
    let plain = !service.is_empty() && !service.starts_with('.') && !service.contains(['/', '\0']);
    if !plain {
        return Err(format!("PAM: '{service}' is not the name of a service; correct `pam.service_name`"));
    }
    let places: Vec<PathBuf> =
        SERVICE_DIRECTORIES.iter().map(|place| Path::new(place).join(service)).collect();
    if places.iter().any(|place| place.is_file()) {
        return Ok(());
    }
    let place = places.first().map(|place| place.display().to_string()).unwrap_or_default();
    Err(format!(
        "PAM: {place} does not exist, so nobody is allowed by the service '{service}'; create the file, or correct `pam.service_name`"
    ))
}

impl Session {
    fn begin(library: &'static Library, service: &str, user: &LocalUser) -> Result<Self, String> {
        let service = CString::new(service).map_err(|error| error.to_string())?;
        let name = CString::new(user.name.as_str()).map_err(|error| error.to_string())?;
        let words = Box::into_raw(Box::<Vec<String>>::default());
        let conversation = Conversation { function: converse, data: words.cast() };
        let mut handle = std::ptr::null_mut();
        // SAFETY: the strings and the conversation live through the call, which copies them; the words that the
        // conversation points to live as long as the handle.
        let code = unsafe {
            (library.start)(service.as_ptr(), name.as_ptr(), &raw const conversation, &raw mut handle)
        };
        if code != SUCCESS || handle.is_null() {
            return Err(format!("PAM: pam_start: (error code: {code} [{}])", code_name(code)));
        }
        Ok(Self { library, handle, words, has_credentials: false })
    }

    fn establish(&mut self, user: &LocalUser) -> Result<(), Failure> {
        // SAFETY: the handle is open.
        let code = unsafe { (self.library.acct_mgmt)(self.handle, 0) };
        self.check("account", code)?;
        privileges::take_groups(user)?;
        // SAFETY: as above.
        let code = unsafe { (self.library.setcred)(self.handle, ESTABLISH_CREDENTIALS) };
        // This runs the modules of `auth` lines, which decide nothing here: sites that let nobody prove who they are write
        // `auth required pam_deny.so`, and that module fails here, too. What was not established is missing, no more.
        self.has_credentials = code == SUCCESS;
        if !self.has_credentials {
            let why = self.explain("credentials", code);
            self.said(why);
        }
        // SAFETY: as above.
        let code = unsafe { (self.library.open_session)(self.handle, 0) };
        self.check("session", code).inspect_err(|_| drop(self.delete_credentials()))
    }

    /// Undoes what was established. The error, if that fails.
    fn delete_credentials(&mut self) -> Option<String> {
        if !std::mem::take(&mut self.has_credentials) {
            return None;
        }
        // SAFETY: the handle is open.
        let code = unsafe { (self.library.setcred)(self.handle, DELETE_CREDENTIALS) };
        (code != SUCCESS).then(|| self.explain("credentials", code))
    }

    /// Keeps a text for the log.
    fn said(&mut self, text: String) {
        // SAFETY: only the conversation writes to it besides, within a call of PAM; nothing else has it during this.
        unsafe { (*self.words).push(text) };
    }

    fn check(&mut self, phase: &str, code: c_int) -> Result<(), Failure> {
        match code {
            SUCCESS => Ok(()),
            code => Err(Problem::denied(self.explain(phase, code)).at(Stage::HostAuthentication)),
        }
    }

    /// The error and what modules said before it: upstream's form, then the words.
    fn explain(&self, phase: &str, code: c_int) -> String {
        // SAFETY: the handle is open; the library answers with a static text.
        let text = unsafe {
            let text = (self.library.strerror)(self.handle, code);
            if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        };
        let words = self.words().iter().map(|word| format!("; {word}")).collect::<String>();
        format!("PAM {phase}: (error code: {code} [{}]) {text}{words}", code_name(code))
    }

    /// The environment that modules made for the user.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        // SAFETY: the library answers with null, or with a list of strings that ends with null; the list and the strings
        // are the caller's to free.
        unsafe {
            let list = (self.library.getenvlist)(self.handle);
            if list.is_null() {
                return variables;
            }
            let mut next = list;
            while !(*next).is_null() {
                let entry = CStr::from_ptr(*next).to_string_lossy();
                variables
                    .extend(entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
                libc::free((*next).cast());
                next = next.add(1);
            }
            libc::free(list.cast());
        }
        variables
    }

    /// What modules said, for the log.
    pub(super) fn words(&self) -> &[String] {
        // SAFETY: only the conversation writes to it, within a call of PAM; `self` is not lent out during one.
        unsafe { &*self.words }
    }

    /// Closes the session, deletes the credentials, and ends PAM; yields what failed.
    pub(super) fn close(mut self) -> Vec<String> {
        let mut failures = Vec::new();
        // SAFETY: the handle is open; the call is made once, since `self` ends here.
        let code = unsafe { (self.library.close_session)(self.handle, 0) };
        if code != SUCCESS {
            failures.push(self.explain("session", code));
        }
        failures.extend(self.delete_credentials());
        self.end(SUCCESS);
        failures
    }

    fn end(self, code: c_int) {
        // SAFETY: the handle is open, and nobody has it or the words after this.
        unsafe {
            (self.library.end)(self.handle, code);
            drop(Box::from_raw(self.words));
        }
    }
}

/// PAM's way to talk to a person. There is none: texts go to the log, questions are an error.
///
/// # Safety
/// PAM calls it with `count` messages, and with the words that [`Session::begin`] passed.
unsafe extern "C" fn converse(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    let Ok(count) = usize::try_from(count) else { return CONVERSATION_ERROR };
    if messages.is_null() || responses.is_null() || data.is_null() {
        return CONVERSATION_ERROR;
    }
    // SAFETY: as this function's head says; PAM frees the answers, which therefore come from its allocator.
    unsafe {
        let words = &mut *data.cast::<Vec<String>>();
        for index in 0..count {
            let message = *messages.add(index);
            if message.is_null() {
                return CONVERSATION_ERROR;
            }
            if !(*message).text.is_null() && words.len() < WORDS_LIMIT {
                let text: *const c_char = (*message).text;
                words.push(bounded(CStr::from_ptr(text).to_string_lossy().trim_end()).to_owned());
            }
            if matches!((*message).style, PROMPT_ECHO_OFF | PROMPT_ECHO_ON) {
                return CONVERSATION_ERROR;
            }
        }
        *responses = libc::calloc(count.max(1), size_of::<Response>()).cast();
        if (*responses).is_null() { OUT_OF_MEMORY } else { SUCCESS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_without_a_file_and_names_that_are_paths() {
        for service in ["", "../shadow", "/etc/pam.d/su", ".hidden", "a\0b"] {
            assert!(find_service(service).unwrap_err().contains("not the name of a service"), "{service:?}");
        }
        let text = find_service("no-such-service-of-a-test").unwrap_err();
        assert!(text.contains("/etc/pam.d/no-such-service-of-a-test does not exist"), "{text}");
    }

    #[test]
    fn the_conversation_keeps_texts_and_refuses_questions() {
        let mut words: Vec<String> = Vec::new();
        let data = std::ptr::from_mut(&mut words).cast::<c_void>();
        let text = c"The system is going down.";
        for (style, expected) in
            [(4, SUCCESS), (3, SUCCESS), (1, CONVERSATION_ERROR), (2, CONVERSATION_ERROR)]
        {
            let message = Message { style, text: text.as_ptr() };
            let mut list: *const Message = &raw const message;
            let mut answers: *mut Response = std::ptr::null_mut();
            // SAFETY: one message, and the words.
            let code = unsafe { converse(1, &raw mut list, &raw mut answers, data) };
            assert_eq!(code, expected);
            // SAFETY: the answers are null or were just allocated.
            unsafe { libc::free(answers.cast()) };
        }
        assert_eq!(words.len(), 4);
    }
}
