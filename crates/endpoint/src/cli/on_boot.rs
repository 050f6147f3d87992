//! `enable-on-boot`, `disable-on-boot`: write and remove a systemd unit that runs an endpoint.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::account::AccountSettings;
use crate::config::Configuration;
use crate::console::say;
use crate::directory::{Base, EndpointDir};
use crate::environment;
use crate::exit::{CommandResult, Failure, block_on};
use crate::host::user_name;
use crate::login::log_in;
use crate::pid::{self, ProcessState};

/// The directory of units, unless the environment names another.
const UNITS: &str = "/etc/systemd/system";

const NO_SYSTEMD: &str = "Systemd not found. On-boot persistence is currently only implemented for systemd; check this \
                          machine's init system documentation for alternatives.";

pub(super) fn enable(base: &Base, name: &str) -> CommandResult {
    let units = units()?;
    let endpoint = base.find(name)?;
    let (configuration, _) = Configuration::load(&endpoint)?;
    let name = endpoint.name();
    if let ProcessState::Alive(_) | ProcessState::Elsewhere(_) = pid::process_state(&endpoint) {
        return Err(Failure::error(format!(
            "Cannot enable on-boot persistence for an endpoint that is currently running. Stop endpoint {name} and \
             try again."
        )));
    }
    // A login is not possible under systemd, so it happens now, unless the unit has the credentials of a client identity.
    if !credentials(&endpoint).exists() {
        block_on(async {
            let settings = AccountSettings {
                endpoint: Some((&endpoint, configuration.service())),
                ..AccountSettings::of(base)
            };
            let account = settings.account().await?;
            if account.personal
                && !account.service.logged_in().await.map_err(|error| account.failed(error))?
            {
                log_in(&account).await?;
            }
            Ok(())
        })?;
    }
    let program = environment::path_as_started(None).map_err(Failure::error)?;
    let manager = matches!(configuration, Configuration::Manager(_));
    let text = unit(&program, base.path(), &endpoint, &user_name(), manager);
    let path = units.join(format!("{}.service", service(&name)));
    let written = OpenOptions::new().write(true).create_new(true).open(&path);
    match written.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::error(format!(
                "Cannot create systemd unit file - a file with the name {} already exists",
                path.display()
            )));
        }
        Err(error) => {
            return Err(Failure::error(format!(
                "{error}: '{}'\n\nUnable to create systemd unit file.  (Do you need to be root?)\n\n\
                 ----- Systemd unit file content -----\n{text}",
                path.display()
            )));
        }
    }
    // The texts of the users' guide and of the administrators'.
    let run = match manager {
        true => format!(" at {}. Run\n\tsudo systemctl enable {}", path.display(), service(&name)),
        false => format!(". Run\n   sudo systemctl enable {}.service", service(&name)),
    };
    say(format_args!("Systemd service installed{run} --now\nto enable the service and start the endpoint."));
    if let Ok(Some(_)) = crate::account::credentials() {
        say(format_args!(
            "\nThe environment names a client identity, which the service does not see. To run as it, write\n   \
             GLOBUS_COMPUTE_CLIENT_ID=...\n   GLOBUS_COMPUTE_CLIENT_SECRET=...\nto {} (mode 0600).",
            credentials(&endpoint).display()
        ));
    }
    Ok(())
}

pub(super) fn disable(base: &Base, name: &str) -> CommandResult {
    let units = units()?;
    let name = base.find(name)?.name();
    let service = service(&name);
    let path = units.join(format!("{service}.service"));
    if !path.exists() {
        return Err(Failure::error(format!(
            "There does not appear to be an existing systemd unit for endpoint {name} (unit file {} not found)",
            path.display()
        )));
    }
    say(format_args!(
        "Run the following to disable on-boot-persistence:\n   systemctl stop {service}\n   systemctl disable \
         {service}\n   rm {}",
        path.display()
    ));
    Ok(())
}

fn units() -> Result<PathBuf, Failure> {
    let path =
        environment::variable("FARCALL_SYSTEMD_UNITS").map_or_else(|| PathBuf::from(UNITS), PathBuf::from);
    if path.is_dir() { Ok(path) } else { Err(Failure::error(NO_SYSTEMD)) }
}

fn service(name: &str) -> String {
    format!("globus-compute-endpoint-{name}")
}

/// The optional file with a client identity's credentials, which the unit reads.
fn credentials(endpoint: &EndpointDir) -> PathBuf {
    endpoint.path().join("client.env")
}

/// What a manager's unit has in addition. It limits nothing that user endpoints inherit to their harm.
const MANAGER: &str = "\
# `systemctl reload` reads the configuration again; user endpoints go on.
ExecReload=/bin/kill -HUP $MAINPID
# The manager ends its user endpoints itself, in order; what is left is killed.
KillMode=mixed
TimeoutStopSec=60
# Memory that one user exhausts ends nobody else's tasks.
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=16384:524288
";

/// The text of the unit. It runs the endpoint in the foreground, whatever the configuration says, and does not restart it after
/// failures that a restart can't cure.
fn unit(program: &Path, base: &Path, endpoint: &EndpointDir, user: &str, manager: bool) -> String {
    let name = endpoint.name();
    // A manager needs the accounts and the homes of its users.
    let after = if manager { " nss-user-lookup.target remote-fs.target" } else { "" };
    let more = if manager { MANAGER } else { "" };
    // Nor does a restart write a mapping that is missing.
    let mapping = if manager { " 72" } else { "" };
    format!(
        "[Unit]\n\
         Description=Globus Compute Endpoint \"{}\"\n\
         Wants=network-online.target\n\
         After=network-online.target{after}\n\
         # A network that is away for an hour is waited for; what fails for longer is given up.\n\
         StartLimitIntervalSec=4h\n\
         StartLimitBurst=240\n\
         \n\
         [Service]\n\
         # Optional: GLOBUS_COMPUTE_CLIENT_ID=... and GLOBUS_COMPUTE_CLIENT_SECRET=..., one a line, mode 0600.\n\
         EnvironmentFile=-{}\n\
         ExecStart={} --config-dir {} start --foreground {}\n\
         User={user}\n\
         Type=simple\n\
         Restart=always\n\
         RestartSec=15\n\
         # The configuration, the identity or the registration must change first, or it runs elsewhere.\n\
         RestartPreventExitStatus=65{mapping} 77 78 255\n\
         {more}\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        name.replace('%', "%%"),
        // A path by itself is not split at blanks.
        credentials(endpoint).display().to_string().replace('%', "%%"),
        quoted(&program.display().to_string()),
        quoted(&base.display().to_string()),
        quoted(&name),
    )
}

/// Quotes an argument of a unit's command line.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+@:,".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{word}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit() {
        let endpoint = EndpointDir::at(PathBuf::from("/home/u ser/.globus_compute/my_first_endpoint"));
        let text = unit(
            Path::new("/opt/bin/globus-compute-endpoint"),
            Path::new("/home/u ser/.globus_compute"),
            &endpoint,
            "me",
            false,
        );
        insta::assert_snapshot!(text, @r#"
        [Unit]
        Description=Globus Compute Endpoint "my_first_endpoint"
        Wants=network-online.target
        After=network-online.target
        # A network that is away for an hour is waited for; what fails for longer is given up.
        StartLimitIntervalSec=4h
        StartLimitBurst=240

        [Service]
        # Optional: GLOBUS_COMPUTE_CLIENT_ID=... and GLOBUS_COMPUTE_CLIENT_SECRET=..., one a line, mode 0600.
        EnvironmentFile=-/home/u ser/.globus_compute/my_first_endpoint/client.env
        ExecStart=/opt/bin/globus-compute-endpoint --config-dir "/home/u ser/.globus_compute" start --foreground my_first_endpoint
        User=me
        Type=simple
        Restart=always
        RestartSec=15
        # The configuration, the identity or the registration must change first, or it runs elsewhere.
        RestartPreventExitStatus=65 77 78 255

        [Install]
        WantedBy=multi-user.target
        "#);
        assert_eq!(quoted("a%b"), "\"a%%b\"");
    }

    #[test]
    fn the_unit_of_a_manager() {
        let endpoint = EndpointDir::at(PathBuf::from("/root/.globus_compute/prod_gpu_large"));
        let text = unit(
            Path::new("/usr/bin/globus-compute-endpoint"),
            Path::new("/root/.globus_compute"),
            &endpoint,
            "root",
            true,
        );
        insta::assert_snapshot!(text, @r#"
        [Unit]
        Description=Globus Compute Endpoint "prod_gpu_large"
        Wants=network-online.target
        After=network-online.target nss-user-lookup.target remote-fs.target
        # A network that is away for an hour is waited for; what fails for longer is given up.
        StartLimitIntervalSec=4h
        StartLimitBurst=240

        [Service]
        # Optional: GLOBUS_COMPUTE_CLIENT_ID=... and GLOBUS_COMPUTE_CLIENT_SECRET=..., one a line, mode 0600.
        EnvironmentFile=-/root/.globus_compute/prod_gpu_large/client.env
        ExecStart=/usr/bin/globus-compute-endpoint --config-dir /root/.globus_compute start --foreground prod_gpu_large
        User=root
        Type=simple
        Restart=always
        RestartSec=15
        # The configuration, the identity or the registration must change first, or it runs elsewhere.
        RestartPreventExitStatus=65 72 77 78 255
        # `systemctl reload` reads the configuration again; user endpoints go on.
        ExecReload=/bin/kill -HUP $MAINPID
        # The manager ends its user endpoints itself, in order; what is left is killed.
        KillMode=mixed
        TimeoutStopSec=60
        # Memory that one user exhausts ends nobody else's tasks.
        OOMPolicy=continue
        TasksMax=infinity
        LimitNOFILE=16384:524288

        [Install]
        WantedBy=multi-user.target
        "#);
    }
}
