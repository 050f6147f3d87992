//! What a template makes of options, and what holds against hostile ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::path::Path;

use manager::template::{Account, Inputs, RenderError, mapped_identity, read, render};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What the manager gives to a template.
struct Manager {
    directory: tempfile::TempDir,
    user_runtime: Value,
    gecos: &'static str,
}

impl Manager {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            user_runtime: json!({"python_version": "3.11.7 (main)", "globus_compute_sdk_version": "3.8.0"}),
            gecos: "Alicia,,,",
        }
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn render_checked(
        &self,
        template: &str,
        options: &Value,
        schema: Option<&Value>,
    ) -> Result<String, RenderError> {
        let account = Account {
            name: "alicia".into(),
            uid: 4711,
            gid: 4712,
            groups: vec![4712, 100],
            gecos: self.gecos.into(),
            shell: "/bin/bash".into(),
            home: "/home/alicia".into(),
        };
        render(&Inputs {
            template_path: &self.directory.path().join("user_config_template.yaml.j2"),
            template_text: template,
            schema,
            user_options: options.as_object().unwrap(),
            user_runtime: Some(&self.user_runtime),
            parent_config: &json!({"display_name": "The site's", "heartbeat_period": 30}),
            mapped_identity: &mapped_identity(&account, Some("11111111-2222-4333-8444-555555555555")),
            environment: &BTreeMap::from([("SITE".to_owned(), "here".to_owned())]),
        })
    }

    fn render(&self, template: &str, options: Value) -> Result<String, RenderError> {
        self.render_checked(template, &options, None)
    }

    fn refused(&self, template: &str, options: Value) -> (String, String) {
        let error = self.render(template, options).unwrap_err();
        (error.exception, error.text)
    }
}

fn yaml(text: &str) -> Value {
    let options = serde_saphyr::options! { strict_booleans: true, legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(text, options).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A site's template, of the users' documents.
const POLARIS: &str = r"display_name: Polaris at ALCF - debug-scaling queue
engine:
  type: GlobusComputeEngine
  address:
    type: address_by_interface
    ifname: bond0

  strategy:
    type: SimpleStrategy
    max_idletime: 30

  provider:
    type: PBSProProvider
    queue: debug-scaling

    account: {{ ACCOUNT_ID }}

    # Command to be run before starting a worker
    worker_init: {{ WORKER_INIT_COMMAND|default() }}

    nodes_per_block: {{ NODES_PER_BLOCK|default(1) }}
    walltime: 1:00:00
";

#[test]
fn a_sites_template_takes_the_options_it_names() {
    let manager = Manager::new();
    let text = manager.render(POLARIS, json!({"ACCOUNT_ID": "a", "NODES_PER_BLOCK": 2})).unwrap();
    let provider = &yaml(&text)["engine"]["provider"];
    assert_eq!(provider["account"], json!("a"));
    assert_eq!(provider["worker_init"], Value::Null);
    assert_eq!(provider["nodes_per_block"], json!(2));
}

#[test]
fn a_missing_option_is_named_with_its_line_and_with_what_to_do() {
    let (exception, text) = Manager::new().refused(POLARIS, json!({}));
    assert_eq!(exception, "UndefinedError");
    insta::assert_snapshot!(text, @r"
    'ACCOUNT_ID' is undefined
      Line 16 of user_config_template.yaml.j2: account: {{ ACCOUNT_ID }}
      Pass ACCOUNT_ID in user_endpoint_config, or the administrator gives it a default in the template: {{ ACCOUNT_ID|default() }}.
    ");
}

#[test]
fn errors_name_upstreams_exception_and_the_place() {
    let manager = Manager::new();
    manager.file("part.j2", "one\n{{ inner }}");
    let cases = [
        ("a\n{% if %}", "TemplateSyntaxError", "Line 2 of user_config_template.yaml.j2: {% if %}"),
        ("{{ ''.__class__ }}", "SecurityError", "access to attribute '__class__' is unsafe."),
        ("{{ x|nothing }}", "TemplateAssertionError", "No filter named 'nothing'."),
        (
            "{% import 'part.j2' as 'a' %}",
            "TemplateSyntaxError",
            "after `as`, `set` and `for` must stand a name",
        ),
        ("{{ user_runtime.python.version }}", "UndefinedError", "'user_runtime.python.version' is undefined"),
        (
            "{% include 'part.j2' %}",
            "UndefinedError",
            "'inner' is undefined\n  Line 2 of part.j2: {{ inner }}",
        ),
        ("{% include 'other.j2' %}", "TemplateNotFound", "'other.j2' not found"),
        ("{{ '%d' % 5 }}", "TypeError", "{{ \"%d\"|format(value) }}"),
        ("{{ 'abc'|shell_escape }}", "JSONDecodeError", "Expecting value: line 1 column 1 (char 0)"),
    ];
    for (template, exception, part) in cases {
        let (found, text) = manager.refused(template, json!({"x": 1}));
        assert_eq!(found, exception, "{template}: {text}");
        assert!(text.contains(part), "{template}: {text}");
    }
}

#[test]
fn reserved_words_are_refused_and_self_does_no_harm() {
    let manager = Manager::new();
    for word in ["parent_config", "user_runtime", "mapped_identity", "_GC"] {
        let (exception, text) = manager.refused("x", json!({word: {}}));
        assert_eq!(exception, "ValueError");
        assert_eq!(text, format!("'{word}' is a reserved word and cannot be passed in via user config"));
    }
    assert_eq!(
        manager.render("{% block b %}x{% endblock %}{{ self.b() }}", json!({"self": 5})).unwrap(),
        "xx"
    );
}

#[test]
fn values_have_the_type_they_were_sent_with() {
    let manager = Manager::new();
    for value in
        [json!(null), json!(true), json!(1.5), json!(1e300), json!(1e-300), json!(u64::MAX), json!(i64::MIN)]
    {
        let text = manager.render("x: {{ v }}", json!({"v": value})).unwrap();
        assert_eq!(yaml(&text)["x"], value, "{text}");
    }
    let long = json!([{"k".repeat(10_000): 1}, "😀\n'".repeat(5_000)]);
    let text = manager.render("x: {{ v }}\ny: 1", json!({"v": long})).unwrap();
    assert_eq!(yaml(&text), json!({"x": long, "y": 1}));
    assert_eq!(manager.render("{{ 1e308 * 10 }} {{ -1e308 * 10 }}", json!({})).unwrap(), ".inf -.inf");
}

#[test]
fn the_manager_tells_templates_what_they_ask() {
    let manager = Manager::new();
    let cases = [
        ("{{ user_runtime.python_version }}", "\"3.11.7 (main)\""),
        ("{% if '3.11' in user_runtime.python_version %}yes{% endif %}", "yes"),
        ("{{ user_runtime.python.version|default('none') }}", "none"),
        ("{{ user_runtime.platform.machine|default('none') }}", "none"),
        ("{{ user_runtime.python is defined }}", "False"),
        ("{{ 'python' in user_runtime }}", "False"),
        ("{{ _GC.user_runtime.python.version|default('none') }}", "none"),
        ("{{ parent_config.display_name }}", "The site's"),
        ("{{ _GC.parent_config.heartbeat_period }}", "30"),
        ("{{ mapped_identity.local.uname }} {{ mapped_identity.local.uid }}", "alicia 4711"),
        ("{{ mapped_identity.local.groups }}", "[4712, 100]"),
        ("/scratch/{{ _GC.mapped_identity.local.uname }}", "/scratch/alicia"),
        ("{{ mapped_identity.local.gecos }}", "Alicia,,,"),
        ("{{ mapped_identity.globus.id }}", "11111111-2222-4333-8444-555555555555"),
        ("{{ _GC.env.SITE }}", "here"),
    ];
    for (template, expected) in cases {
        assert_eq!(manager.render(template, json!({})).unwrap(), expected, "{template}");
    }
}

#[test]
fn a_users_name_in_the_account_database_is_no_structure() {
    for gecos in ["x\nengine: {}", "{a: b}", "- x", "a: b", "x # y", "'", "\"", "*a", ""] {
        let manager = Manager { gecos, ..Manager::new() };
        let text = manager.render("x: {{ mapped_identity.local.gecos }}", json!({})).unwrap();
        let expected = if gecos.is_empty() { Value::Null } else { json!(gecos) };
        assert_eq!(yaml(&text), json!({"x": expected}), "{text}");
    }
}

#[test]
fn further_templates_come_from_the_templates_directory_only() {
    let manager = Manager::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    std::fs::create_dir(manager.directory.path().join("sub")).unwrap();
    manager.file("sub/part.j2", "part");
    std::os::unix::fs::symlink("sub/part.j2", manager.directory.path().join("inside")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), manager.directory.path().join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path(), manager.directory.path().join("linked")).unwrap();
    for name in ["sub/part.j2", "./sub/part.j2", "inside"] {
        assert_eq!(
            manager.render("{% include name %}", json!({"name": 1})).unwrap_err().exception,
            "TypeError"
        );
        assert_eq!(manager.render(&format!("{{% include '{name}' %}}"), json!({})).unwrap(), "part");
    }
    let absolute = outside.path().join("secret");
    let climbing = format!("../{}/secret", outside.path().file_name().unwrap().to_str().unwrap());
    for name in ["link", "linked/secret", absolute.to_str().unwrap(), &climbing, "sub/../../etc/passwd"] {
        let (exception, _) = manager.refused(&format!("{{% include '{name}' %}}"), json!({}));
        assert_eq!(exception, "TemplateNotFound", "{name}");
    }
}

#[test]
fn a_fifo_in_place_of_a_file_is_refused_and_not_waited_for() {
    let manager = Manager::new();
    let path = manager.directory.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(read(&path).unwrap_err().text.contains("not a regular file"));
    let (exception, text) = manager.refused("\n{% include 'fifo' %}", json!({}));
    assert_eq!(exception, "OSError");
    assert!(text.contains("not a regular file") && text.contains("\n  Line 2 of "), "{text}");
}

#[test]
fn a_template_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("user_config_template.yaml.j2");
    let error = read(&path).unwrap_err();
    assert_eq!(error.exception, "FileNotFoundError");
    let expected = format!("[Errno 2] No such file or directory: '{}'", path.display());
    assert!(error.text.starts_with(&expected), "{error}");
    std::fs::write(directory.path().join("user_config_template.yaml"), "old").unwrap();
    assert_eq!(read(&path).unwrap(), "old");
    std::fs::write(&path, [0xff]).unwrap();
    assert_eq!(read(&path).unwrap_err().exception, "UnicodeDecodeError");
    std::fs::write(&path, "x".repeat((1 << 20) + 1)).unwrap();
    assert!(read(&path).unwrap_err().text.contains("larger than 1048576 bytes"));
    assert_eq!(read(Path::new("/")).unwrap_err().exception, "OSError");
}

#[test]
fn runaway_templates_end_with_an_error() {
    let manager = Manager::new();
    manager.file("itself", "{% include 'itself' %}");
    let loops = "{% for a in range(99999) %}".repeat(3) + &"{% endfor %}".repeat(3);
    let nested =
        "{% set n = namespace(x=1) %}{% for i in range(50000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}";
    let cases = [
        (loops.as_str(), "TemplateRuntimeError"),
        ("{% for a in range(99999) %}{{ 'x' * 99 }}{% endfor %}", "TemplateRuntimeError"),
        ("{{ 'x' * 10**9 }}", "TemplateRuntimeError"),
        ("{{ [1] * 10**8 }}", "TemplateRuntimeError"),
        ("{{ '%999999999d'|format(1) }}", "TemplateRuntimeError"),
        ("{{ '{:>999999999}'.format(1) }}", "MemoryError"),
        (nested, "MemoryError"),
        ("{{ range(10**9) }}", "TypeError"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{% include 'itself' %}", "RecursionError"),
        (
            "{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "TemplateRuntimeError",
        ),
    ];
    for (template, exception) in cases {
        let (found, text) = manager.refused(template, json!({}));
        assert_eq!(found, exception, "{template}: {text}");
    }
}

#[test]
fn runaway_schemas_end_with_an_error() {
    let manager = Manager::new();
    let check = |schema: Value, options: Value| manager.render_checked("ok", &options, Some(&schema));
    // No more steps than an expression may take.
    let schema = json!({"properties": {"s": {"pattern": "^(a|aa|(?=a)a)*\\1b$"}}});
    let error = check(schema, json!({"s": "a".repeat(5_000)})).unwrap_err();
    assert_eq!(error.exception, "ValidationError", "{error}");
    // Another document is never read.
    let error = check(json!({"$ref": "file:///etc/passwd"}), json!({})).unwrap_err();
    assert_eq!(error.exception, "SchemaError");
    // The schema refers to itself without end.
    assert_eq!(check(json!({"$ref": "#"}), json!({"x": 1})).unwrap(), "ok");
}

#[test]
fn a_schemas_error_says_what_users_know() {
    let manager = Manager::new();
    let schema = json!({
        "type": "object",
        "properties": {
            "container_type": {"enum": ["docker", "podman", null]},
            "endpoint_setup": {"type": "string"},
            "nodes": {"type": "object", "properties": {"count": {"type": "integer", "maximum": 5}}},
        },
        "additionalProperties": false,
    });
    let refused = |options: Value| {
        let error = manager.render_checked("ok", &options, Some(&schema)).unwrap_err();
        assert_eq!(error.exception, "ValidationError");
        error.text
    };
    insta::assert_snapshot!(refused(json!({"container_type": "dockr"})), @r"
    'dockr' is not one of ['docker', 'podman', None]

    Failed validating 'enum' in schema['properties']['container_type']:
        {'enum': ['docker', 'podman', None]}

    On instance['container_type']:
        'dockr'
    ");
    assert!(refused(json!({"endpoint_setup": 5})).starts_with("5 is not of type 'string'\n"));
    assert!(refused(json!({"nodes": {"count": 6}})).contains("On instance['nodes']['count']:"));
    let text = refused(json!({"endpoint_setpu": "x"}));
    assert!(
        text.starts_with("Additional properties are not allowed ('endpoint_setpu' was unexpected)"),
        "{text}"
    );
    // A long value does not fill the log.
    assert!(refused(json!({"endpoint_setup": vec!["x".repeat(100); 10_000]})).len() < 8_000);
    assert_eq!(
        manager.render_checked("ok", &json!({"container_type": "docker"}), Some(&schema)).unwrap(),
        "ok"
    );
}

fn strings() -> impl Strategy<Value = String> {
    let hostile = prop::sample::select(vec![
        "\nengine:\n  type: X",
        "a', 'b",
        "\"",
        "'",
        "{{7*7}}",
        "{% raw %}",
        ": ",
        "- a",
        "#",
        "\\",
        "null",
        "yes",
        "~",
        "😀",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\u{fffe}",
        "\u{10ffff}",
        "*a",
        "&a",
        "!x",
        "1:00",
        "0x1f",
        "1_000",
        ".inf",
        "<<",
    ]);
    let parts = prop::collection::vec(
        prop_oneof![hostile.prop_map(str::to_owned), any::<char>().prop_map(String::from), "[a-z ]{0,20}"],
        0..5,
    );
    parts.prop_map(|parts| parts.concat())
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no other numbers", |value| value.is_finite())
            .prop_map(Value::from),
        strings().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 30, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(strings(), inner, 0..6).prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 100, ..ProptestConfig::default() })]

    /// Whatever a user sends arrives as that one value, however a template prints it.
    #[test]
    fn an_option_arrives_as_the_value_that_was_sent(value in values()) {
        let manager = Manager::new();
        for print in ["{{ v }}", "{{ v|default() }}", "{{ v|tojson }}", "{{ [v][0] }}", "{{ {'k': v}.k }}"] {
            let text = manager.render(&format!("x: {print}\ny: 1"), json!({"v": value})).unwrap();
            prop_assert_eq!(yaml(&text), json!({"x": value, "y": 1}), "{}", text);
        }
        let text = manager.render("x: {{ [v, {'k': v}] }}", json!({"v": value})).unwrap();
        prop_assert_eq!(yaml(&text), json!({"x": [value, {"k": value}]}), "{}", text);
    }

    /// Members and elements that a template prints one by one are themselves, too.
    #[test]
    fn the_parts_of_an_option_arrive_as_they_were_sent(
        members in prop::collection::btree_map(strings(), values(), 1..5),
    ) {
        let template = "{% for k, m in v.items() %}\n{{ k }}: {{ m }}{% endfor %}\n";
        let text = Manager::new().render(template, json!({"v": members})).unwrap();
        prop_assert_eq!(yaml(&text), json!(members), "{}", text);
        let template = "{% for k in v %}\n- [{{ k }}, {{ v[k] }}]{% endfor %}\n";
        let text = Manager::new().render(template, json!({"v": members})).unwrap();
        let expected: Vec<_> = members.iter().map(|(key, value)| json!([key, value])).collect();
        prop_assert_eq!(yaml(&text), json!(expected), "{}", text);
    }

    /// A text that is quoted for a shell is one word of it.
    #[test]
    fn a_shell_reads_an_escaped_option_as_one_word(value in strings().prop_filter("no argument has it", |text| !text.contains('\0'))) {
        let text = Manager::new().render("x: {{ v|shell_escape }}", json!({"v": value})).unwrap();
        let command = format!("printf %s {}", yaml(&text)["x"].as_str().unwrap());
        let output = std::process::Command::new("sh").arg("-c").arg(command).output().unwrap();
        prop_assert_eq!(output.stdout, value.as_bytes());
    }

    /// No template and no option makes the engine panic, or the caller wait.
    #[test]
    fn any_template_is_rendered_or_refused(
        parts in prop::collection::vec(prop_oneof![
            Just("{{ v"), Just(" }}"), Just("{% for i in v %}"), Just("{% endfor %}"), Just("|tojson"), Just("|string"), Just("[0]"), Just(".a"),
            Just("{% if v %}"), Just("{% endif %}"), Just(" ~ v"), Just(" * 3"), Just("[1:]"), Just("|join"), Just("|sort"), Just("|dictsort"),
        ], 0..12),
        value in values(),
    ) {
        match Manager::new().render(&parts.concat(), json!({"v": value})) {
            Ok(_) => {}
            Err(error) => prop_assert_ne!(error.exception, "OSError"),
        }
    }
}
