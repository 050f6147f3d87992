//! What is read from a manager's configuration, and what is refused in which words.

use super::*;

fn good(text: &str) -> ManagerConfig {
    ManagerConfig::read("/etc/mep/config.yaml", text).unwrap_or_else(|bad| panic!("{text}\n{bad}"))
}

fn bad(text: &str) -> String {
    let read = ManagerConfig::read("config.yaml", text);
    read.map(|config| format!("accepted: {config:?}")).unwrap_err().0
}

/// The lines that 3.8.0 prints (seen by running it), which come first in ours.
#[test]
fn errors_begin_with_upstreams_lines() {
    let table = [
        ("engine: {type: ThreadPoolEngine}", "engine\n  extra fields not permitted (type=value_error.extra)"),
        ("detach_endpoint: true", "detach_endpoint\n  extra fields not permitted (type=value_error.extra)"),
        (
            "idle_heartbeats_soft: 3",
            "idle_heartbeats_soft\n  extra fields not permitted (type=value_error.extra)",
        ),
        ("paths: {endpoint_dir: /x}", "paths\n  extra fields not permitted (type=value_error.extra)"),
        (
            "user_config_schema_path: 3",
            "user_config_schema_path\n  value is not a valid path (type=type_error.path)",
        ),
        ("audit_log_path: [3]", "audit_log_path\n  value is not a valid path (type=type_error.path)"),
        (
            "pam: true",
            "pam\n  instance of PamConfiguration, tuple or dict expected (type=type_error.dataclass; \
             class_name=PamConfiguration)",
        ),
        (
            "pam: {foo: 1}",
            "pam\n  PamConfiguration.__init__() got an unexpected keyword argument 'foo' (type=type_error)",
        ),
        (
            "pam: {enable: maybe}",
            "pam -> enable\n  value could not be parsed to a boolean (type=type_error.bool)",
        ),
        ("pam: {service_name: [1]}", "pam -> service_name\n  str type expected (type=type_error.str)"),
        (
            "mu_child_ep_grace_period_s: x",
            "mu_child_ep_grace_period_s\n  value is not a valid float (type=type_error.float)",
        ),
        ("public: maybe", "public\n  value could not be parsed to a boolean (type=type_error.bool)"),
        (
            "force_mu_allow_same_user: x",
            "force_mu_allow_same_user\n  value could not be parsed to a boolean (type=type_error.bool)",
        ),
        ("amqp_port: z", "amqp_port\n  value is not a valid integer (type=type_error.integer)"),
        ("admins: x", "admins\n  value is not a valid list (type=type_error.list)"),
    ];
    for (line, expected) in table {
        let found = bad(&format!("multi_user: true\n{line}\n"));
        let expected = format!("1 validation error for ManagerEndpointConfigModel\n{expected}\n");
        assert!(found.starts_with(&expected), "{line}\n{found}");
    }
}

/// What upstream does not refuse.
#[test]
fn errors_of_our_own() {
    for (text, expected) in [
        (
            "multi_user: 'true'\n",
            "multi_user\n  write true or false, without quotes (type=type_error.bool)\n",
        ),
        ("multi_user: false\n", "multi_user\n  a manager has it true, or not at all (type=value_error)\n"),
        (
            "max_concurrent_starts: 0\n",
            "max_concurrent_starts\n  value must be 1 or more (type=value_error)\n",
        ),
        (
            "max_user_endpoints: -1\n",
            "max_user_endpoints\n  value is not a valid integer (type=type_error.integer)\n",
        ),
        (
            "pam: {service_name: ../x}\n",
            "pam -> service_name\n  it is no name of a file in /etc/pam.d (type=value_error)\n",
        ),
        (
            "audit_log_path: /var/log/x\n",
            "audit_log_path\n  it needs high_assurance: true (type=value_error)\n",
        ),
        (
            "high_assurance: true\nsubscription_id: 2340174a-1a0e-46d8-a958-7c3ddf2c834a\n",
            "high_assurance\n  High Assurance(HA) endpoints require both a HA policy and a HA subscription id \
             (type=value_error)\n",
        ),
    ] {
        let found = bad(text);
        let expected = format!("1 validation error for ManagerEndpointConfigModel\n{expected}");
        assert!(found.starts_with(&expected), "{text}\n{found}");
    }
}

#[test]
fn a_setting_of_user_endpoints_belongs_into_the_template() {
    insta::assert_snapshot!(bad("multi_user: true\nengine: {}\ndetach_endpoint: no\nworking_dirs: x\n"), @r"
    3 validation errors for ManagerEndpointConfigModel
    detach_endpoint
      extra fields not permitted (type=value_error.extra)
    engine
      extra fields not permitted (type=value_error.extra)
    working_dirs
      extra fields not permitted (type=value_error.extra)

     --> config.yaml:3:1
      |
    3 | detach_endpoint: no
      | ^^^^^^^^^^^^^^^
      = help: `start --detach` runs a manager in the background

     --> config.yaml:2:1
      |
    2 | engine: {}
      | ^^^^^^
      = help: a manager runs no tasks: write the engine into the user endpoints' template

     --> config.yaml:4:1
      |
    4 | working_dirs: x
      | ^^^^^^^^^^^^
    ");
}

#[test]
fn defaults_are_those_of_the_contract() {
    for text in ["", "# nothing\n", "multi_user: true\n", "multi_user: true\npam: null\nengine: null\n"] {
        let text = text.replace("engine: null\n", "");
        let config = good(&text);
        assert_eq!((config.public, config.high_assurance, config.allow_same_user), (false, false, false));
        assert_eq!(config.pam_service, None);
        assert_eq!(config.grace_period, Duration::from_secs(30));
        assert_eq!((config.max_concurrent_starts, config.max_user_endpoints), (32, 1_000));
        assert_eq!(config.common.heartbeat_period, 30);
        assert_eq!(config.common.allowed_functions, None);
        assert_eq!(config.identity_mapping_config_path, None);
    }
}

#[test]
fn every_key_of_both_releases() {
    let config = good(
        "multi_user: true\ndisplay_name: Debug queue, 1-block max\nallowed_functions: []\nheartbeat_period: 2.5\n\
         admins: [2340174a-1a0e-46d8-a958-7c3ddf2c834a]\namqp_port: 443\nenvironment: 3\ndebug: on\npublic: 'yes'\n\
         authentication_policy: 2340174a-1a0e-46d8-a958-7c3ddf2c834a\nhigh_assurance: true\naudit_log_path: audit.log\n\
         subscription_id: 2340174A1A0E46D8A9587C3DDF2C834A\nemail: root@site.example\nuser_config_template_path: t.j2\n\
         user_config_schema_path: /s.json\nidentity_mapping_config_path: /m.json\nforce_mu_allow_same_user: true\n\
         pam: {service_name: gce-mep123}\nmu_child_ep_grace_period_s: 12.5\nmax_concurrent_starts: 4\n\
         max_user_endpoints: '20'\n",
    );
    assert_eq!(config.common.display_name.as_deref(), Some("Debug queue, 1-block max"));
    assert_eq!(config.common.allowed_functions, Some(vec![]));
    assert_eq!(config.common.heartbeat_period, 5);
    assert!(config.public && config.high_assurance && config.allow_same_user && config.common.debug);
    assert_eq!(config.audit_log_path.as_deref(), Some(Path::new("/etc/mep/audit.log")));
    let endpoint = EndpointDir::at("/etc/mep".into());
    assert_eq!(config.template(&endpoint), Path::new("/etc/mep/t.j2"));
    assert_eq!(config.schema(&endpoint), Path::new("/s.json"));
    assert_eq!(config.pam_service.as_deref(), Some("gce-mep123"));
    assert_eq!(config.grace_period, Duration::from_millis(12_500));
    assert_eq!((config.max_concurrent_starts, config.max_user_endpoints), (4, 20));
    assert_eq!(config.resolved()["pam"], json!({"enable": true, "service_name": "gce-mep123"}));
}

#[test]
fn grace_periods_are_bounded() {
    let day = LONGEST_GRACE_PERIOD;
    for (seconds, period) in [
        (12.5, Duration::from_millis(12_500)),
        (0.0, Duration::ZERO),
        (-1.0, Duration::ZERO),
        (f64::NAN, Duration::ZERO),
        (f64::NEG_INFINITY, Duration::ZERO),
        (1e6, day),
        (1e300, day),
        (f64::INFINITY, day),
    ] {
        assert_eq!(bounded(seconds), period, "{seconds}");
    }
    assert_eq!(good("mu_child_ep_grace_period_s: -1\n").grace_period, Duration::ZERO);
}

#[test]
fn pam_may_be_off() {
    assert_eq!(good("pam: {enable: false}\n").pam_service, None);
    assert_eq!(good("pam: {}\n").pam_service.as_deref(), Some("globus-compute-endpoint"));
}
