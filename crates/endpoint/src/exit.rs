//! How a command ends: its message and its exit status.

/// The exit statuses of upstream's endpoint, by their names in `sysexits.h`.
pub(crate) mod status {
    /// Any other failure.
    pub(crate) const GENERIC: u8 = 1;
    /// EX_DATAERR: the service rejects the request's data, or sent an incomplete registration.
    pub(crate) const DATAERR: u8 = 65;
    /// EX_UNAVAILABLE: the service refuses the registration.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// EX_SOFTWARE: an answer of the service can't be used, or no block works any more.
    pub(crate) const SOFTWARE: u8 = 70;
    /// EX_OSFILE: a file that the endpoint needs is missing.
    pub(crate) const OSFILE: u8 = 72;
    /// EX_CANTCREAT: a file can't be written.
    pub(crate) const CANTCREAT: u8 = 73;
    /// EX_TEMPFAIL: the service or the broker can't be reached; a retry may help.
    pub(crate) const TEMPFAIL: u8 = 75;
    /// EX_NOPERM: this identity may not do that.
    pub(crate) const NOPERM: u8 = 77;
    /// EX_CONFIG: the configuration does not work.
    pub(crate) const CONFIG: u8 = 78;
    /// The endpoint already runs.
    pub(crate) const ALREADY_ACTIVE: u8 = 255;
}

/// A failed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    /// Printed to standard error; nothing is printed if it is empty.
    pub(crate) text: String,
    /// Somebody else may mend it while this process runs: the service, the network, or whoever logs in again.
    pub(crate) may_pass: bool,
}

impl Failure {
    pub(crate) fn new(status: u8, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), may_pass: false }
    }

    /// `Error: <message>`, exit status 1.
    pub(crate) fn error(message: impl std::fmt::Display) -> Self {
        Self::new(status::GENERIC, format!("Error: {message}"))
    }

    /// The text without `Error: `, for places that say so themselves.
    pub(crate) fn bare(&self) -> &str {
        self.text.strip_prefix("Error: ").unwrap_or(&self.text).trim()
    }
}

/// The result of a command.
pub(crate) type CommandResult = Result<(), Failure>;

/// Runs asynchronous work of a command.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::error)?;
    let result = runtime.block_on(work);
    // A look-up of a host's name may still be under way when the command is called off; dropping the runtime would wait
    // for it.
    runtime.shutdown_background();
    result
}
