//! Tests of containers, for SDKs up to 4.5: registered and looked up, never built.

use serde_json::json;

use crate::support::Farcall;

#[tokio::test]
async fn a_container_is_what_was_registered_and_nobody_elses() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let body = json!({"name": "n", "location": "/x/y.sif", "description": "", "type": "singularity"});
    let answer = client.post("/v2/containers", body).await.ok();
    let id = answer["container_id"].as_str().unwrap();
    let path = format!("/v2/containers/{id}/singularity");
    let expected = json!({"container_uuid": id, "name": "n", "type": "singularity", "location": "/x/y.sif"});
    assert_eq!(client.get(&path).await.ok(), json!({"container": expected}));
    client.get(&format!("/v2/containers/{id}/docker")).await.refused(404, "CONTAINER_NOT_FOUND");
    other.get(&path).await.refused(404, "CONTAINER_NOT_FOUND");
    let build =
        json!({"name": "n", "description": null, "apt": [], "pip": [], "conda": [], "payload_url": null});
    client.post("/v2/containers/build", build).await.refused(422, "SEMANTICALLY_INVALID");
    client.get(&format!("/v2/containers/build/{id}")).await.refused(404, "CONTAINER_NOT_FOUND");
}
