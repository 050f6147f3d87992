//! Tests of how much one client may use of what all share: endpoints, connections, memory for bodies, credentials.

use futures_util::StreamExt;
use serde_json::json;

use crate::database::Database;
use crate::support::{COMPUTE, Client, Farcall, Registration, consume, endpoint_body, open};

/// A registration with so many bytes of metadata.
fn heavy(name: &str, bytes: usize) -> serde_json::Value {
    let mut body = endpoint_body();
    body["endpoint_name"] = json!(name);
    body["metadata"]["endpoint_config"] = json!("#".repeat(bytes));
    body
}

async fn listed(client: &Client, role: &str) -> Vec<String> {
    let listed = client.get(&format!("/v2/endpoints?role={role}")).await.ok();
    listed.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
}

/// 40 endpoints of 1 MB: a list shows four members of each.
#[tokio::test]
async fn a_list_of_endpoints_reads_what_it_shows() {
    let service = Farcall::start();
    let client = service.client().await;
    for number in 0..40 {
        client.post("/v3/endpoints", heavy(&format!("ep{number:02}"), 1_000_000)).await.ok();
    }
    let before = service.begin_peak();
    for role in ["owner", "any"] {
        let names = listed(&client, role).await;
        assert_eq!(names, (0..40).map(|number| format!("ep{number:02}")).collect::<Vec<_>>());
    }
    let peak = service.peak_megabytes();
    assert!(peak < before + 20, "{before} MB before, at most {peak} MB");
}

/// Who may see what stays as it was, and nothing is listed twice.
#[tokio::test]
async fn a_list_has_the_own_first_then_the_administered_then_the_public() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let register = async |by: &Client, name: &str, more: serde_json::Value| {
        let mut body = endpoint_body();
        body["endpoint_name"] = json!(name);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        by.post("/v3/endpoints", body).await.ok()["endpoint_id"].as_str().unwrap().to_owned()
    };
    register(&client, "z-own", json!({"public": true, "admins": [&client.id]})).await;
    register(&client, "y-own", json!({})).await;
    let lent = register(&other, "b-lent", json!({"public": true, "admins": [&client.id]})).await;
    register(&other, "c-lent", json!({"admins": [&client.id, &other.id]})).await;
    register(&other, "a-public", json!({"public": true})).await;
    register(&other, "a-private", json!({})).await;
    assert_eq!(listed(&client, "owner").await, ["y-own", "z-own"]);
    assert_eq!(listed(&client, "any").await, ["y-own", "z-own", "b-lent", "c-lent", "a-public"]);
    // Registered anew without them: its administrators are others now.
    other.put(&format!("/v3/endpoints/{lent}"), endpoint_body()).await.ok();
    assert_eq!(listed(&client, "any").await, ["y-own", "z-own", "c-lent", "a-public"]);
    client.get(&format!("/v2/endpoints/{lent}")).await.refused(404, "ENDPOINT_NOT_FOUND");
}

#[tokio::test]
async fn an_identity_has_so_many_endpoints() {
    let service = Farcall::configured("limits:\n  endpoints_per_identity: 3\n");
    let (client, other) = (service.client().await, service.client().await);
    let first = client.register().await;
    client.register().await;
    client.register().await;
    let refused = client.post("/v3/endpoints", endpoint_body()).await.refused(409, "RESOURCE_CONFLICT");
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("3 endpoints") && message.contains("limits.endpoints_per_identity"),
        "{message}"
    );
    let unknown = "/v3/endpoints/00000000-0000-4000-8000-000000000001";
    client.put(unknown, endpoint_body()).await.refused(409, "RESOURCE_CONFLICT");
    // Those that exist come again, others' are not counted, and a deleted one makes room.
    client.register_again(first.id()).await;
    other.register().await;
    client.delete(&format!("/v2/endpoints/{}", first.id())).await.ok();
    client.register().await;
}

/// A list of more than is read at a time.
#[tokio::test]
async fn a_long_list_comes_whole() {
    let service = Farcall::start();
    let client = service.client().await;
    client.register().await;
    let mut database = service.database().await;
    let new_id = match database {
        Database::Sqlite(_) => "randomblob(16)",
        Database::Postgres(_) => "uuid_send(gen_random_uuid())",
    };
    let copy = format!(
        "INSERT INTO endpoints (id, owner_id, name, multi_user, public, created_us, credential) \
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1300) \
         SELECT {new_id}, owner_id, 'same', multi_user, public, created_us, 1 FROM endpoints, n"
    );
    assert_eq!(database.execute(copy, []).await, 1300);
    let listed = client.get("/v2/endpoints").await.ok();
    let ids: std::collections::HashSet<_> =
        listed.as_array().unwrap().iter().map(|it| it["uuid"].as_str().unwrap()).collect();
    assert_eq!((listed.as_array().unwrap().len(), ids.len()), (1301, 1301));
}

/// Whether a connection is refused. Clients that would take a refusal for wrong credentials are let in first, and told to
/// come again.
async fn is_sent_away(url: &str) -> bool {
    let connected = lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await;
    let Ok(connection) = connected else { return true };
    let channel = connection.create_channel().await;
    channel.is_err()
}

/// Connections of endpoints count for their owner.
#[tokio::test]
async fn an_identity_has_its_share_of_the_connections_to_the_broker() {
    let service = Farcall::configured("limits:\n  amqp_connections: 40\n");
    let (client, other) = (service.client().await, service.client().await);
    let registrations = [client.register().await, client.register().await];
    let mut held = Vec::new();
    for number in 0..10 {
        held.push(open(registrations[number % 2].url()).await);
    }
    assert!(is_sent_away(registrations[0].url()).await);
    let results = client.get("/v2/get_amqp_result_connection_url").await.ok();
    assert!(is_sent_away(results["connection_url"].as_str().unwrap()).await, "its client, too");
    let others = other.register().await;
    open(others.url()).await;
    held.pop().unwrap().0.close(200, "".into()).await.unwrap();
    // It is counted until the service has finished with it.
    let room = async {
        while is_sent_away(registrations[1].url()).await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), room).await.unwrap();
}

/// A connection outlives the credential that opened it, but not the disabling of its owner.
#[tokio::test]
async fn who_is_disabled_loses_connections_whose_credentials_had_ended() {
    let service = Farcall::start();
    let client = service.client().await;
    let answer = client.get("/v2/get_amqp_result_connection_url").await.ok();
    let (connection, _channel) = open(answer["connection_url"].as_str().unwrap()).await;
    service.database().await.execute("DELETE FROM credentials", []).await;
    assert!(connection.status().connected());
    service.administer(&["client", "disable", &client.id], "");
    tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while connection.status().connected() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

/// An address for results leaves nothing behind: asked for at every reconnection, it is the same for a time.
#[tokio::test]
async fn addresses_for_results_do_not_pile_up() {
    let service = Farcall::start();
    let client = service.client().await;
    let ask = async || {
        let answer = client.get("/v2/get_amqp_result_connection_url").await.ok();
        answer["connection_url"].as_str().unwrap().to_owned()
    };
    let first = ask().await;
    let (connection, _channel) = open(&first).await;
    for _ in 0..300 {
        let last = ask().await;
        assert_eq!(last, first);
    }
    open(&first).await;
    let mut database = service.database().await;
    assert_eq!(database.read("SELECT count(*) FROM credentials").await, Some(1));
    // What ends all that somebody has ends this, too: the next address is another.
    database.execute("DELETE FROM credentials", []).await;
    let another = ask().await;
    assert_ne!(another, first);
    open(&another).await;
    assert!(connection.status().connected());
}

/// What is kept of a function is read at every submit.
#[tokio::test]
async fn what_a_function_says_of_its_origin_is_short() {
    let service = Farcall::start();
    let client = service.client().await;
    let body = |version: String| json!({"function_name": "f", "function_code": crate::support::CODE, "meta": {"python_version": version}});
    let refused = client.post("/v3/functions", body("3".repeat(257))).await.refused(400, "REQUEST_MALFORMED");
    assert!(refused["message"].as_str().unwrap().contains("meta"), "{refused}");
    client.post("/v3/functions", body("3".repeat(256))).await.ok();
}

/// While a user endpoint is being started, the memory for large bodies is somebody else's.
#[tokio::test]
async fn a_submit_that_waits_for_its_user_endpoint_holds_no_memory() {
    let service = Farcall::configured("limits:\n  payload_bytes: 10485760\n");
    let (client, other) = (service.client().await, service.client().await);
    let mut manager = endpoint_body();
    manager["metadata"]["user_config_template"] = json!("engine: {}");
    let manager = Registration(client.post("/v3/endpoints", manager).await.ok());
    let (_connection, channel) = open(manager.url()).await;
    let commands = manager.0["command_queue_info"]["queue"].as_str().unwrap();
    let mut commands = consume(&channel, commands, false).await.unwrap();
    // More than half of the largest body: there is memory for one of them.
    let payload = "1".repeat(8 << 20);
    let large = |function: &str| json!({"tasks": {function: [&payload, &payload]}});
    let body = large(&client.function().await);
    let path = format!("/v3/endpoints/{}/submit", manager.id());
    let waiting = tokio::spawn(async move { client.post(&path, body).await });
    commands.next().await.unwrap().unwrap();
    let (function, endpoint) = (other.function().await, other.register().await);
    other.post(&format!("/v3/endpoints/{}/submit", endpoint.id()), large(&function)).await.ok();
    assert!(!waiting.is_finished(), "its user endpoint does not come");
    waiting.abort();
}

/// What is kept of a deleted endpoint is kept for good: so they are made at a bounded rate.
#[tokio::test]
async fn endpoints_that_are_made_and_deleted_without_end_are_made_at_a_bounded_rate() {
    let service = Farcall::configured("limits:\n  endpoints_per_identity: 1\n");
    let (client, other) = (service.client().await, service.client().await);
    let mut made = 0;
    let refused = loop {
        let answer = client.post("/v3/endpoints", endpoint_body()).await;
        if answer.status != 200 {
            break answer;
        }
        made += 1;
        assert!(made < 1_000, "without end");
        let id = answer.ok()["endpoint_id"].as_str().unwrap().to_owned();
        client.delete(&format!("/v2/endpoints/{id}")).await.ok();
    };
    let wait = refused.headers["retry-after"].to_str().unwrap().to_owned();
    refused.refused(429, "MAX_REQUESTS_EXCEEDED");
    assert_eq!((made >= 102, wait.as_str()), (true, "1"));
    other.register().await;
}

/// Each request for tokens is a write.
#[tokio::test]
async fn an_identity_asks_for_tokens_at_a_bounded_rate() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let asking = futures_util::stream::iter(0..3_000).map(|_| client.grant(COMPUTE)).buffer_unordered(64);
    let refused: Vec<_> = asking.filter(|answer| std::future::ready(answer.status != 200)).collect().await;
    let Some(answer) = refused.first() else { panic!("3,000 tokens at once") };
    assert!(refused.len() < 1_001, "{} of 3,000 were refused", refused.len());
    assert_eq!((answer.status.as_u16(), &answer.body["error"]), (429, &json!("temporarily_unavailable")));
    assert_eq!(answer.headers["retry-after"], "1");
    other.grant(COMPUTE).await.ok();
}

/// Anybody can come with a token that never was: it costs one look-up, however often.
#[tokio::test]
async fn who_comes_with_unknown_tokens_without_end_is_told_why_for_a_while_and_locks_out_nobody() {
    let service = Farcall::start();
    let (client, ended) = (service.client().await, service.client().await);
    service.administer(&["client", "disable", &ended.id], "");
    let why = async || {
        let answer = ended.get("/v2/endpoints").await.refused(401, "INVALID_AUTH_TOKEN");
        answer["message"].as_str().unwrap().to_owned()
    };
    assert!(why().await.contains("is disabled"));
    let unknown = (0..400).map(|number| client.with_token(&json!(format!("never-was-{number}"))));
    let unknown: Vec<_> = unknown.collect();
    // The address may be told ten reasons in a second: asked while the others come, it is soon not told.
    let mut told = true;
    for _ in 0..20 {
        let coming =
            futures_util::stream::iter(&unknown).map(|it| it.get("/v2/endpoints")).buffer_unordered(32);
        let coming = coming.for_each(async |answer| drop(answer.refused(401, "INVALID_AUTH_TOKEN")));
        let asking = async {
            for _ in 0..10 {
                told &= why().await != "The token is unknown or has ended";
            }
        };
        tokio::join!(coming, asking);
        if !told {
            break;
        }
    }
    assert!(!told, "the reason was told each time");
    client.get("/v2/endpoints").await.ok();
}
