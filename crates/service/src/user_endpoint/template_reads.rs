//! Finds what a manager's template reads of `user_runtime`, so that people whose programs differ in that get user endpoints of their
//! own. Pure.
//!
//! It reads text, not the template's language, and so finds too much rather than too little: what a comment names counts, too.
//! Versions of Python and SDK are part of every id and don't count here. The service knows the template as it was when the manager
//! registered it last; a template that includes another file may read anything.

use std::collections::BTreeSet;

use serde_json::Value;

const NAME: &str = "user_runtime";
/// Always part of the id.
const VERSIONS: [&str; 3] = ["python_version", "globus_compute_sdk_version", "python.version"];
/// Tags that bring in another file.
const OTHER_FILES: [&str; 4] = ["extends", "include", "import", "from"];

/// Paths below `user_runtime`, as `platform.machine`. The empty path is all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TemplateReads(BTreeSet<String>);

impl TemplateReads {
    pub(super) fn of(template: &str) -> TemplateReads {
        let mut paths: BTreeSet<_> =
            template.match_indices(NAME).filter_map(|(at, _)| path(template, at)).collect();
        if brings_in_another_file(template) {
            paths.insert(String::new());
        }
        paths.retain(|path| !VERSIONS.contains(&path.as_str()));
        if paths.contains("") {
            paths = BTreeSet::from([String::new()]);
        }
        TemplateReads(paths)
    }

    /// What `runtime` has at each path; null where it has nothing.
    pub(super) fn values<'a>(&self, runtime: &'a Value) -> impl Iterator<Item = (String, &'a Value)> {
        self.0.iter().map(move |path| {
            let mut members = path.split('.').filter(|name| !name.is_empty());
            let value = members.try_fold(runtime, |value, name| value.get(name));
            (path.clone(), value.unwrap_or(&Value::Null))
        })
    }
}

/// The path that is read at this occurrence of the name: at most two members. Whatever follows it and is no member ends it.
/// `None`: the occurrence is in the name of another variable.
fn path(template: &str, at: usize) -> Option<String> {
    let mut rest = &template[at + NAME.len()..];
    if rest.starts_with(is_part_of_a_name) || template[..at].ends_with(is_part_of_a_name) {
        return None;
    }
    let mut path = String::new();
    for _ in 0..2 {
        let Some((name, after)) = member(rest) else { break };
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        rest = after;
    }
    Some(path)
}

/// The member at the beginning of `text`, and what comes after: `.name`, `['name']` or `["name"]`.
fn member(text: &str) -> Option<(&str, &str)> {
    let (name, after) = match text.strip_prefix('.') {
        Some(text) => text.split_at(text.find(|it| !is_part_of_a_name(it)).unwrap_or(text.len())),
        None => {
            let quoted = text.strip_prefix('[')?;
            let quote = quoted.chars().next().filter(|it| matches!(it, '\'' | '"'))?;
            let (name, after) = quoted[1..].split_once(quote)?;
            (name, after.strip_prefix(']')?)
        }
    };
    // A method of the object, such as `.items()`, reads all of it.
    (!name.is_empty() && name.chars().all(is_part_of_a_name) && !after.starts_with('('))
        .then_some((name, after))
}

fn is_part_of_a_name(it: char) -> bool {
    it.is_alphanumeric() || it == '_'
}

fn brings_in_another_file(template: &str) -> bool {
    template.split("{%").skip(1).any(|tag| {
        let tag = tag.trim_start_matches(['-', '+']).trim_start();
        let word = tag.split(|it: char| !is_part_of_a_name(it)).next().unwrap_or_default();
        OTHER_FILES.contains(&word)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_templates_read() {
        for (template, paths) in [
            ("engine: {}", &[][..]),
            ("{% if user_runtime.python_version.startswith('3.11') %}", &[]),
            ("{{ user_runtime.python.version }} {{ user_runtime.globus_compute_sdk_version }}", &[]),
            ("{{ user_runtime.globus_sdk_version }}", &["globus_sdk_version"]),
            ("{{ user_runtime.platform.machine|default('') }}", &["platform.machine"]),
            ("{{ user_runtime['platform'][\"machine\"] }}", &["platform.machine"]),
            ("{{ user_runtime.platform.machine.lower() }}", &["platform.machine"]),
            (
                "{{ user_runtime.platform['machine'] }}{{ user_runtime.python.implementation }}",
                &["platform.machine", "python.implementation"],
            ),
            ("{% set p = user_runtime.platform %}{{ p.machine }}", &["platform"]),
            ("{{ user_runtime.platform[which] }}", &["platform"]),
            ("{% for k, v in user_runtime.platform.items() %}", &["platform"]),
            ("{{ user_runtime[which] }} {{ user_runtime.platform.machine }}", &[""]),
            ("{{ user_runtime|tojson }}", &[""]),
            ("{% for k in user_runtime.keys() %}", &[""]),
            ("{{ my_user_runtime }} {{ user_runtime_2.platform }}", &[]),
            ("{%- extends 'base.yaml' %}", &[""]),
            ("{% include \"x\" %}", &[""]),
            ("{% set including = 1 %}", &[]),
            ("user_runtime", &[""]),
            ("{{ user_runtime.", &[""]),
            ("{{ user_runtime['platform", &[""]),
        ] {
            let read = TemplateReads::of(template);
            assert_eq!(read.0.iter().collect::<Vec<_>>(), paths.iter().collect::<Vec<_>>(), "{template}");
        }
    }

    #[test]
    fn values_of_paths() {
        let runtime = json!({"platform": {"machine": "arm", "node": "here"}, "python": "no object"});
        let read = TemplateReads(
            ["platform.machine", "platform.absent", "python.version.x", "absent"].map(str::to_owned).into(),
        );
        let values: Vec<_> = read.values(&runtime).collect();
        let value = |path: &str| values.iter().find(|(it, _)| it == path).unwrap().1;
        assert_eq!(value("platform.machine"), &json!("arm"));
        for absent in ["platform.absent", "python.version.x", "absent"] {
            assert_eq!(value(absent), &Value::Null);
        }
        assert_eq!(
            TemplateReads(BTreeSet::from([String::new()])).values(&runtime).next().unwrap().1,
            &runtime
        );
    }
}
