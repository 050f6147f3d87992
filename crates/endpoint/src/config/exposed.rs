//! Which of a manager's files can be changed by others than root. The identity mapping and its programs are judged where the
//! mapping is read.

use std::path::PathBuf;

use manager::ownership::{Exposed, exposed};

use super::ManagerConfig;
use crate::directory::EndpointDir;
use crate::environment;

/// What others can change.
#[derive(Debug, Default)]
pub(crate) struct ExposedFiles {
    /// A manager does not start with these.
    pub(crate) refused: Vec<Exposed>,
    /// A manager warns of these.
    pub(crate) doubtful: Vec<Exposed>,
}

impl ManagerConfig {
    /// Looks at the owners and modes of all files that a manager which changes users reads in this directory.
    pub(crate) fn exposed_files(&self, endpoint: &EndpointDir) -> ExposedFiles {
        let mut files = ExposedFiles::default();
        let own = nix::unistd::Uid::effective().as_raw();
        let config = endpoint.config();
        // The program runs already: to refuse it now protects nobody. What users get, they get as themselves.
        let further = [
            environment::own_path().ok(),
            Some(self.template(endpoint)),
            Some(self.schema(endpoint)),
            Some(endpoint.user_environment()),
        ];
        let all: Vec<PathBuf> = [Some(config.clone())].into_iter().chain(further).flatten().collect();
        for file in all {
            // What can't be looked at can't be read either, which is told where it is read.
            let Ok(Some(found)) = exposed(&file, own) else { continue };
            if file == config && found.is_certain() {
                files.refused.push(found);
            } else {
                files.doubtful.push(found);
            }
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_configuration_that_others_can_write_is_refused_and_other_files_are_pointed_out() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = EndpointDir::at(scratch.path().to_owned());
        let config = ManagerConfig::read("config.yaml", "multi_user: true\n").unwrap();
        let template = config.template(&endpoint);
        let files =
            [endpoint.config(), template.clone(), config.schema(&endpoint), endpoint.user_environment()];
        let writable =
            |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for file in &files {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
            writable(file, 0o644);
        }
        let program = environment::own_path().unwrap();
        let found = || {
            let ExposedFiles { refused, mut doubtful } = config.exposed_files(&endpoint);
            // The tests' own program may lie anywhere.
            doubtful.retain(|it| it.file != program);
            let file = |it: Exposed| it.file;
            (
                refused.into_iter().map(file).collect::<Vec<_>>(),
                doubtful.into_iter().map(file).collect::<Vec<_>>(),
            )
        };
        assert_eq!(found(), (vec![], vec![]));
        for file in &files {
            writable(file, 0o666);
        }
        assert_eq!(found(), (vec![endpoint.config()], files[1..].to_vec()));
    }
}
