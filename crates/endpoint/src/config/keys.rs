//! The names of all settings. For a mistyped one, the nearest is suggested.

/// Settings of every endpoint.
pub(super) const EVERY_ENDPOINT: [&str; 15] = [
    "admins",
    "allowed_functions",
    "amqp_port",
    "authentication_policy",
    "ca_certificates",
    "debug",
    "display_name",
    "environment",
    "heartbeat_period",
    "high_assurance",
    "local_compute_services",
    "log_size_limit",
    "multi_user",
    "service_url",
    "subscription_id",
];

/// Settings of an endpoint that runs tasks.
pub(super) const TASKS: [&str; 12] = [
    "detach_endpoint",
    "endpoint_setup",
    "endpoint_teardown",
    "engine",
    "heartbeat_threshold",
    "idle_heartbeats_hard",
    "idle_heartbeats_soft",
    "log_dir",
    "pass_client_identity",
    "shutdown_grace",
    "stderr",
    "stdout",
];

/// Settings of a manager.
pub(super) const MANAGER: [&str; 11] = [
    "audit_log_path",
    "email",
    "force_mu_allow_same_user",
    "identity_mapping_config_path",
    "max_concurrent_starts",
    "max_user_endpoints",
    "mu_child_ep_grace_period_s",
    "pam",
    "public",
    "user_config_schema_path",
    "user_config_template_path",
];
