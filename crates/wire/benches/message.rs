//! Measures the cost of reading and writing a task and a result, beside serde_json doing the same into plain strings, and
//! beside a plain copy of the same bytes. `bench/README.md` has the results, and says how to read them.
//!
//! The payload consists of lines of base64, as payloads do. The program fails at its end if the goal is missed.

use std::time::{Duration, Instant};

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wire::Text;
use wire::message::{self, Message, Task, TaskResult};

fn main() {
    divan::main();
    encoding_a_megabyte_is_no_slower_than_serde_json();
}

/// The goal. It is compared with the fastest of many runs, which other processes disturb least.
#[allow(clippy::print_stdout, reason = "a benchmark's figures are its output")]
fn encoding_a_megabyte_is_no_slower_than_serde_json() {
    let task = task(1_000_000);
    let bytes = task.encode();
    let theirs = plain::<PlainTask>(&bytes);
    let mut fastest = [Duration::MAX; 3];
    for _ in 0..200 {
        let runs: [&dyn Fn() -> Vec<u8>; 3] = [
            &|| black_box(&task).encode(),
            &|| serde_json::to_vec(black_box(&theirs)).expect("plain strings"),
            &|| black_box(&bytes).to_vec(),
        ];
        for (fastest, run) in fastest.iter_mut().zip(runs) {
            let start = Instant::now();
            black_box(run());
            *fastest = (*fastest).min(start.elapsed());
        }
    }
    for (subject, took) in ["ours", "serde_json", "a copy of the bytes"].into_iter().zip(fastest) {
        // `bench/run` reads this form.
        let (measure, value) = ("encoding a task of 1 MB", took.as_secs_f64() * 1e6);
        println!("{}", json!({"subject": subject, "measure": measure, "value": value, "unit": "µs"}));
    }
    let [ours, serde_json, _] = fastest;
    assert!(ours <= serde_json, "encoding a megabyte is slower than serde_json");
}

const SIZES: [usize; 3] = [200, 10_000, 1_000_000];
const TASK_ID: &str = "11111111-2222-3333-4444-555555555555";

/// About `size` characters of lines of base64, packed as one buffer.
fn payload(size: usize) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("00\n");
    let mut at = 7_usize;
    while text.len() < size {
        for _ in 0..76.min(size - text.len()) {
            at = (at * 29 + 11) % 4093;
            text.push(char::from(alphabet[at % 64]));
        }
        text.push('\n');
    }
    wire::buffer::pack(&[&text])
}

fn task(size: usize) -> Task<'static> {
    Task {
        task_id: TASK_ID.parse().expect("a constant"),
        container_id: None,
        container: None,
        task_buffer: payload(size).into(),
    }
}

fn result(size: usize) -> TaskResult<'static> {
    let json = format!(
        r#"{{"task_id":"{TASK_ID}","data":"","details":{{"os":"Linux-6.1.0-amd64-x86_64-with-glibc2.36",
        "dill_version":"0.3.9","python_version":"3.11.7","globus_compute_sdk_version":"4.19.0",
        "endpoint_id":"{TASK_ID}"}},"error_details":null,"task_statuses":[
        {{"timestamp":1795216684642073291,"state":"execution-start","actor":"worker"}},
        {{"timestamp":1795216684643992465,"state":"execution-end","actor":"worker"}}]}}"#
    );
    let result: TaskResult<'_> = serde_json::from_str(&json).expect("a constant");
    TaskResult { data: payload(size).into(), ..result.into_owned() }
}

/// The same types as plain serde derives.
#[derive(Serialize, Deserialize)]
struct PlainEnvelope<T> {
    message_type: String,
    data: T,
}

#[derive(Serialize, Deserialize)]
struct PlainTask {
    task_id: String,
    container_id: Option<String>,
    container: Option<Value>,
    task_buffer: String,
}

#[derive(Serialize, Deserialize)]
struct PlainResult {
    task_id: String,
    data: String,
    details: Option<Value>,
    error_details: Option<Value>,
    task_statuses: Option<Vec<Value>>,
}

fn plain<T: serde::de::DeserializeOwned>(message: &[u8]) -> PlainEnvelope<T> {
    serde_json::from_slice(&message[1..]).expect("it was just written")
}

/// A benchmark for each size over the bytes of a message.
fn each(bencher: Bencher<'_, '_>, bytes: &[u8], mut work: impl FnMut(&[u8])) {
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| work(black_box(bytes)));
}

mod decode {
    use super::*;

    mod task {
        use super::*;

        #[divan::bench(args = SIZES)]
        fn borrowed(bencher: Bencher<'_, '_>, size: usize) {
            each(bencher, &task(size).encode(), |bytes| {
                black_box(message::decode(bytes).expect("sound"));
            });
        }

        #[divan::bench(args = SIZES)]
        fn and_its_content(bencher: Bencher<'_, '_>, size: usize) {
            each(bencher, &task(size).encode(), |bytes| {
                let Ok(Message::Task(task)) = message::decode(bytes) else { unreachable!("it is a task") };
                black_box(task.task_buffer.into_string());
            });
        }

        #[divan::bench(args = SIZES)]
        fn serde_json(bencher: Bencher<'_, '_>, size: usize) {
            each(bencher, &task(size).encode(), |bytes| {
                black_box(plain::<PlainTask>(bytes));
            });
        }

        #[divan::bench(args = SIZES)]
        fn copy(bencher: Bencher<'_, '_>, size: usize) {
            each(bencher, &task(size).encode(), |bytes| {
                black_box(bytes.to_vec());
            });
        }
    }

    mod result {
        use super::*;

        #[divan::bench(args = SIZES)]
        fn borrowed(bencher: Bencher<'_, '_>, size: usize) {
            each(bencher, &result(size).encode(), |bytes| {
                black_box(message::decode(bytes).expect("sound"));
            });
        }

        #[divan::bench(args = SIZES)]
        fn and_its_content(bencher: Bencher<'_, '_>, size: usize) {
            each(bencher, &result(size).encode(), |bytes| {
                let Ok(Message::Result(result)) = message::decode(bytes) else {
                    unreachable!("it is a result")
                };
                black_box(result.data.into_string());
            });
        }

        #[divan::bench(args = SIZES)]
        fn serde_json(bencher: Bencher<'_, '_>, size: usize) {
            each(bencher, &result(size).encode(), |bytes| {
                black_box(plain::<PlainResult>(bytes));
            });
        }

        #[divan::bench(args = SIZES)]
        fn copy(bencher: Bencher<'_, '_>, size: usize) {
            each(bencher, &result(size).encode(), |bytes| {
                black_box(bytes.to_vec());
            });
        }
    }
}

mod encode {
    use super::*;

    fn serde_json_writes<T: Serialize>(bencher: Bencher<'_, '_>, value: &PlainEnvelope<T>, size: usize) {
        bencher.counter(BytesCount::new(size)).bench_local(|| {
            let mut out = Vec::with_capacity(256);
            out.push(message::VERSION);
            serde_json::to_writer(&mut out, black_box(value)).expect("a Vec takes everything");
            black_box(out)
        });
    }

    mod task {
        use super::*;

        #[divan::bench(args = SIZES)]
        fn from_plain_text(bencher: Bencher<'_, '_>, size: usize) {
            let task = task(size);
            let counter = BytesCount::new(task.encode().len());
            bencher.counter(counter).bench_local(|| black_box(black_box(&task).encode()));
        }

        #[divan::bench(args = SIZES)]
        fn as_it_came(bencher: Bencher<'_, '_>, size: usize) {
            let bytes = task(size).encode();
            let task = Task::decode(&bytes).expect("sound");
            bencher
                .counter(BytesCount::new(bytes.len()))
                .bench_local(|| black_box(black_box(&task).encode()));
        }

        #[divan::bench(args = SIZES)]
        fn serde_json(bencher: Bencher<'_, '_>, size: usize) {
            let bytes = task(size).encode();
            serde_json_writes(bencher, &plain::<PlainTask>(&bytes), bytes.len());
        }

        #[divan::bench(args = SIZES)]
        fn copy(bencher: Bencher<'_, '_>, size: usize) {
            each(bencher, &task(size).encode(), |bytes| {
                black_box(bytes.to_vec());
            });
        }
    }

    mod result {
        use super::*;

        #[divan::bench(args = SIZES)]
        fn from_plain_text(bencher: Bencher<'_, '_>, size: usize) {
            let result = result(size);
            let counter = BytesCount::new(result.encode().len());
            bencher.counter(counter).bench_local(|| black_box(black_box(&result).encode()));
        }

        #[divan::bench(args = SIZES)]
        fn as_it_came(bencher: Bencher<'_, '_>, size: usize) {
            let bytes = result(size).encode();
            let result = TaskResult::decode(&bytes).expect("sound");
            bencher
                .counter(BytesCount::new(bytes.len()))
                .bench_local(|| black_box(black_box(&result).encode()));
        }

        #[divan::bench(args = SIZES)]
        fn serde_json(bencher: Bencher<'_, '_>, size: usize) {
            let bytes = result(size).encode();
            serde_json_writes(bencher, &plain::<PlainResult>(&bytes), bytes.len());
        }

        #[divan::bench(args = SIZES)]
        fn copy(bencher: Bencher<'_, '_>, size: usize) {
            each(bencher, &result(size).encode(), |bytes| {
                black_box(bytes.to_vec());
            });
        }
    }
}

/// The framing, which counts lengths in characters.
mod framing {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn pack(bencher: Bencher<'_, '_>, size: usize) {
        let text = payload(size);
        bencher.counter(BytesCount::new(text.len())).bench_local(|| wire::buffer::pack(black_box(&[&text])));
    }

    #[divan::bench(args = SIZES)]
    fn split(bencher: Bencher<'_, '_>, size: usize) {
        let text = payload(size);
        bencher.counter(BytesCount::new(text.len())).bench_local(|| {
            black_box(wire::buffer::split(black_box(&text)).expect("sound"));
        });
    }

    #[divan::bench(args = SIZES)]
    fn task_buffer(bencher: Bencher<'_, '_>, size: usize) {
        let (code, text) = (Text::from(payload(200)), payload(size));
        let json = Text::from(text.as_str()).to_json().into_owned();
        let payload = Text::from_json(&json).expect("sound");
        bencher
            .counter(BytesCount::new(text.len()))
            .bench_local(|| black_box(wire::buffer::task_buffer(black_box(&code), black_box(&payload))));
    }
}
