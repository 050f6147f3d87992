//! A client of the service over REST: its tokens, functions, endpoints and tasks.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::amqp::{Results, consume, open};
use super::waiting::until;

pub const COMPUTE: &str = wire::rest::auth::COMPUTE_SCOPE;
/// A packed buffer that stands for a function, and one that stands for arguments.
pub const CODE: &str = "7\n01\ngASV";
pub const PAYLOAD: &str = "5\n00\nab5\n00\ncd";

/// A client identity with a token.
#[derive(Clone)]
pub struct Client {
    pub id: String,
    pub secret: String,
    pub token: String,
    pub(super) http: String,
    pub(super) web: reqwest::Client,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
    pub headers: reqwest::header::HeaderMap,
}

impl Answer {
    /// The name of the error.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// A refusal in the form that all generations of clients read.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status.as_u16(), self.code()), (status, code), "{}", self.body);
        assert_eq!(self.body["status"], "Failed");
        assert_eq!(self.body["http_status_code"], status);
        assert_eq!(self.body["message"], self.body["reason"]);
        assert!(self.body["message"].as_str().is_some_and(|text| !text.is_empty()));
        assert!(self.body["error_args"].is_array());
        assert_eq!(self.body["request_id"].as_str(), self.headers["x-request-id"].to_str().ok());
        self.body
    }
}

pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.bytes().await.unwrap();
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    Answer { status, body, headers }
}

impl Client {
    /// The same client with another token.
    pub fn with_token(&self, token: &serde_json::Value) -> Client {
        Client { token: token.as_str().unwrap().to_owned(), ..self.clone() }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.web.request(method, format!("{}{path}", self.http)).bearer_auth(&self.token)
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }

    /// Tokens for `scope`, by client credentials.
    pub async fn grant(&self, scope: &str) -> Answer {
        let form = [("grant_type", "client_credentials"), ("scope", scope)];
        let request = self.web.post(format!("{}/v2/oauth2/token", self.http));
        send(request.basic_auth(&self.id, Some(&self.secret)).form(&form)).await
    }

    pub async fn function(&self) -> String {
        let body = json!({"function_name": "f", "function_code": CODE, "serialized": true,
            "meta": {"python_version": "3.11.7", "sdk_version": "4.19.0", "serde_identifier": "01"}});
        self.post("/v3/functions", body).await.ok()["function_uuid"].as_str().unwrap().to_owned()
    }

    pub async fn register(&self) -> Registration {
        Registration(self.post("/v3/endpoints", endpoint_body()).await.ok())
    }

    pub async fn register_again(&self, endpoint: &str) -> Registration {
        Registration(self.put(&format!("/v3/endpoints/{endpoint}"), endpoint_body()).await.ok())
    }

    /// Submits `count` calls; the answer.
    pub async fn submit(&self, endpoint: &str, function: &str, count: usize) -> Submitted {
        self.submit_to_group(endpoint, function, count, None).await
    }

    pub async fn submit_to_group(
        &self,
        endpoint: &str,
        function: &str,
        count: usize,
        group: Option<&str>,
    ) -> Submitted {
        let mut body = json!({"create_queue": true, "tasks": {function: vec![PAYLOAD; count]}});
        if let Some(group) = group {
            body["task_group_id"] = json!(group);
        }
        let answer = self.post(&format!("/v3/endpoints/{endpoint}/submit"), body).await.ok();
        let tasks = answer["tasks"][function].as_array().unwrap();
        let tasks: Vec<_> = tasks.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        assert_eq!(tasks.len(), count);
        Submitted { group: answer["task_group_id"].as_str().unwrap().to_owned(), tasks }
    }

    pub async fn task(&self, task: &str) -> Value {
        self.get(&format!("/v2/tasks/{task}")).await.ok()
    }

    /// The task's document once `done` says so.
    pub async fn task_until(&self, task: &str, done: impl Fn(&Value) -> bool) -> Value {
        until(&format!("the awaited state of task {task}"), async || {
            Some(self.task(task).await).filter(&done)
        })
        .await
    }

    /// Consumes the results of `group`, as the SDK does.
    pub async fn results(&self, group: &str) -> Results {
        let answer = self.get("/v2/get_amqp_result_connection_url").await.ok();
        let queue = format!("{}{group}", answer["queue_prefix"].as_str().unwrap());
        let (connection, channel) = open(answer["connection_url"].as_str().unwrap()).await;
        let consumer = consume(&channel, &queue, false).await.unwrap();
        Results { connection, consumer }
    }
}

pub struct Submitted {
    pub group: String,
    pub tasks: Vec<String>,
}

pub struct Registration(pub Value);

impl Registration {
    pub fn id(&self) -> &str {
        self.0["endpoint_id"].as_str().unwrap()
    }

    pub fn url(&self) -> &str {
        self.0["task_queue_info"]["connection_url"].as_str().unwrap()
    }
}

pub fn endpoint_body() -> Value {
    json!({"endpoint_name": "ep", "high_assurance": false, "metadata":
        {"endpoint_version": "3.8.0", "hostname": "h", "local_user": "u", "endpoint_config": "engine: {}"}})
}
