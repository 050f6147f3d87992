//! A fake service: issues tokens, sends its version, and answers registrations as the test specifies.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// A request that was received.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Such as `POST /v3/endpoints`.
    pub(crate) line: String,
    pub(crate) body: String,
}

pub(crate) struct FakeService {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl FakeService {
    /// `answer` returns the status and the body of the answer to each registration.
    pub(crate) fn start(answer: impl Fn(&Request) -> (u16, Value) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &log, &answer);
            }
        });
        Self { url, requests }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Request>>, answer: &impl Fn(&Request) -> (u16, Value)) {
    let mut reader = BufReader::new(&stream);
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap()
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let line = first.trim_end().strip_suffix(" HTTP/1.1").unwrap().to_owned();
    let request = Request { line, body: String::from_utf8(body).unwrap() };
    log.lock().unwrap().push(request.clone());
    let (status, answer) = match request.line.as_str() {
        "POST /v2/oauth2/token" => (
            200,
            json!({"access_token": "t", "scope": "s", "resource_server": "funcx_service", "expires_in": 1000,
                         "token_type": "Bearer", "other_tokens": []}),
        ),
        "GET /v2/version?service=all" => {
            (200, json!({"api": "1.0.0", "min_sdk_version": "1.0.0", "min_ep_version": "1.0.0a0"}))
        }
        _ => answer(&request),
    };
    let answer = answer.to_string();
    write!(
        &stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    )
    .unwrap();
}
