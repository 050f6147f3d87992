//! How a command fails: what it prints and the status it leaves with.

/// The exit statuses upstream's users know, by their sysexits names.
pub(crate) mod status {
    /// What can't be done, for any other reason.
    pub(crate) const GENERIC: u8 = 1;
    /// The service found our data wrong.
    pub(crate) const DATAERR: u8 = 65;
    /// The service will not have this endpoint now.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// The service answered nonsense.
    pub(crate) const SOFTWARE: u8 = 70;
    /// What we need to write can't be written.
    pub(crate) const CANTCREAT: u8 = 73;
    /// Try again later.
    pub(crate) const TEMPFAIL: u8 = 75;
    /// We are not who we would have to be.
    pub(crate) const NOPERM: u8 = 77;
    /// The configuration does not work.
    pub(crate) const CONFIG: u8 = 78;
    /// It already runs.
    pub(crate) const ALREADY_ACTIVE: u8 = 255;
}

/// A failed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    /// Printed as it is, to standard error. Empty: nothing is printed.
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(status: u8, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// `Error: <message>`, exit status 1.
    pub(crate) fn error(message: impl std::fmt::Display) -> Self {
        Self::new(status::GENERIC, format!("Error: {message}"))
    }

    /// What it says, for where it is known to be an error.
    pub(crate) fn bare(&self) -> &str {
        self.text.strip_prefix("Error: ").unwrap_or(&self.text).trim()
    }
}

/// How a command ends.
pub(crate) type CommandResult = Result<(), Failure>;

/// Runs what a command has to wait for.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    // Fails only when it was done before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::error)?;
    let result = runtime.block_on(work);
    // A look-up of a host's name may still be under way when the command is called off; dropping the runtime would wait
    // for it.
    runtime.shutdown_background();
    result
}
