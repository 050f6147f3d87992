//! Tests that acknowledgements are credited to the endpoint that sent them, and that load from one party delays no other.

use futures_util::StreamExt;
use lapin::options::BasicAckOptions;

use crate::support::{Farcall, consume, open, until, within};

#[tokio::test]
async fn an_acknowledgement_is_credited_to_the_run_that_took_the_task() {
    let service = Farcall::start();
    let client = service.client().await;
    let function = client.function().await;
    let first = client.register().await;
    let second = client.register_again(first.id()).await;
    client.submit(first.id(), &function, 1).await;
    let queue = first.0["task_queue_info"]["queue"].as_str().unwrap();
    // The second has not been used yet: the first still opens a connection.
    let (_one, earlier) = open(first.url()).await;
    let mut tasks = consume(&earlier, queue, false).await.unwrap();
    let delivery = within("the task", tasks.next()).await.unwrap().unwrap();
    let (_two, later) = open(second.url()).await;
    let _later = consume(&later, queue, false).await.unwrap();
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    let mut database = service.database().await;
    let credential = until("a recorded acknowledgement", async || {
        database.read("SELECT credential FROM assignments").await
    })
    .await;
    assert_eq!(credential, 1, "the later run did not take it, and would not be missed for it");
}
