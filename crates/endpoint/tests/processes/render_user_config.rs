//! `render-user-config`: its options, where its inputs come from, and upstream's messages.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;

use crate::fake_service::FakeService;
use crate::home::{Home, Ran};

struct Directory {
    home: Home,
    _service: FakeService,
}

impl Directory {
    /// A directory with files, in which commands run.
    fn new(files: &[(&str, &str)]) -> Self {
        let service = FakeService::start(|_| (500, json!({})));
        let home = Home::new(&service);
        for (name, text) in files {
            fs::create_dir_all(home.path(name).parent().unwrap()).unwrap();
            fs::write(home.path(name), text).unwrap();
        }
        Self { home, _service: service }
    }

    fn run(&self, options: &[&str], stdin: &str) -> Ran {
        let mut command = self.home.command(&["render-user-config"]);
        command.args(options).current_dir(self.home.path("")).env("SITE", "here");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that is refused reads nothing.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ran {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn printed(&self, options: &[&str], stdin: &str) -> String {
        let ran = self.run(options, stdin);
        assert_eq!((ran.status, ran.err.as_str()), (0, "> Rendered user config:\n"), "{ran:?}");
        ran.out
    }

    fn refused(&self, options: &[&str], stdin: &str) -> String {
        let ran = self.run(options, stdin);
        assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{ran:?}");
        ran.err
    }
}

#[test]
fn files_and_standard_input_are_read() {
    let directory = Directory::new(&[
        ("t.j2", "x: {{ x }}\n{% include 'part' %}"),
        ("part", "part"),
        ("options.json", r#"{"x": "a"}"#),
        ("runtime.json", r#"{"python_version": "3.13"}"#),
        ("identity.json", r#"{"local": {"uname": "alicia"}, "globus": {"id": "i"}}"#),
        ("parent.yaml", "display_name: Theirs"),
        (
            "all.j2",
            "{{ user_runtime.python_version }} {{ mapped_identity.local.uname }} {{ parent_config.display_name }} \
             {{ parent_config.heartbeat_period }} {{ _GC.env.SITE }}",
        ),
    ]);
    assert_eq!(directory.printed(&["-t", "t.j2", "-o", "options.json"], ""), "x: \"a\"\npart\n");
    assert_eq!(
        directory.printed(&["--template", "t.j2", "--user-options", "-"], r#"{"x": 1}"#),
        "x: 1\npart\n"
    );
    assert_eq!(directory.printed(&["-t", "-"], "{% include 'part' %} {{ _GC.env.SITE }}"), "part here\n");
    let all = [
        "--user-runtime",
        "runtime.json",
        "--mapped-identity",
        "identity.json",
        "--parent-config",
        "parent.yaml",
    ];
    assert_eq!(
        directory.printed(&[&["-t", "all.j2"][..], &all].concat(), ""),
        "\"3.13\" alicia Theirs 30 here\n"
    );
}

#[test]
fn what_is_not_given_is_this_machines() {
    let directory = Directory::new(&[]);
    let template = "{{ mapped_identity.local.uid }} {{ mapped_identity.globus.id }} {{ user_runtime.globus_compute_sdk_version is defined }}";
    let uid = nix::unistd::getuid();
    assert_eq!(
        directory.printed(&["-t", "-"], template),
        format!("{uid} 00000000-0000-0000-0000-000000000000 True\n")
    );
}

#[test]
fn a_managers_files_are_used_unless_others_are_named() {
    let directory = Directory::new(&[
        ("mep/config.yaml", "multi_user: true\ndisplay_name: Ours"),
        ("mep/user_config_template.yaml.j2", "{{ parent_config.display_name }} {{ x }}"),
        ("mep/user_config_schema.json", r#"{"properties": {"x": {"type": "integer"}}}"#),
        ("named/config.yaml", "multi_user: true\nuser_config_template_path: ../other.j2"),
        ("other.j2", "other {{ x }}"),
        ("any.json", "{}"),
        ("plain/config.yaml", "engine: {type: ThreadPoolEngine}"),
    ]);
    assert_eq!(directory.printed(&["-e", "mep", "-o", "-"], r#"{"x": 1}"#), "Ours 1\n");
    assert!(
        directory
            .refused(&["-e", "mep", "-o", "-"], r#"{"x": "a"}"#)
            .contains("'a' is not of type 'integer'")
    );
    assert_eq!(
        directory.printed(&["-e", "mep", "-s", "any.json", "-o", "-"], r#"{"x": "a"}"#),
        "Ours \"a\"\n"
    );
    assert_eq!(directory.printed(&["-e", "mep", "-t", "other.j2", "-o", "-"], r#"{"x": 1}"#), "other 1\n");
    assert_eq!(directory.printed(&["-e", "named", "-o", "-"], r#"{"x": "a"}"#), "other \"a\"\n");
    assert_eq!(
        directory.refused(&["-e", "plain"], ""),
        "Error: Endpoint plain does not support templating.\n"
    );
}

#[test]
fn messages_are_upstreams() {
    let directory = Directory::new(&[
        ("t.j2", "x: {{ x }}"),
        ("list.json", "[1]"),
        ("broken.json", "["),
        ("plain.yaml", "engine: {type: ThreadPoolEngine}"),
    ]);
    let cases = [
        (&[][..], "Error: Must provide at least one of --endpoint or --template.\n"),
        (&["-t", "-", "-o", "-"], "Error: At most one input may be read from stdin across all options.\n"),
        (
            &["-t", "t.j2", "-o", "list.json"],
            "Error: Invalid user options data in list.json: must be a JSON dictionary.\n",
        ),
        (
            &["-t", "t.j2", "--parent-config", "plain.yaml"],
            "Error: Provided parent config does not support templating.\n",
        ),
        (
            &["-t", "t.j2"],
            "Error: Failed to render user configuration template.\n\t(jinja2.exceptions.UndefinedError) 'x' is undefined\n  \
             Line 1 of t.j2: x: {{ x }}\n  Pass x in user_endpoint_config, or the administrator gives it a default in \
             the template: {{ x|default() }}.\n",
        ),
    ];
    for (options, expected) in cases {
        assert_eq!(directory.refused(options, ""), expected);
    }
    let broken = directory.refused(&["-t", "t.j2", "-s", "broken.json"], "");
    assert!(broken.starts_with(
        "Error: Invalid JSON in broken.json for user schema.\n\t(json.decoder.JSONDecodeError) "
    ));
    let missing = directory.run(&["-t", "nowhere"], "");
    assert_eq!(missing.status, 2);
    assert!(
        missing.err.ends_with(
            "Error: Invalid value for '--template' / '-t': 'nowhere': No such file or directory\n"
        )
    );
}
