//! Tests the framing of buffers against what the SDK makes of the same text.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of tests that fails has failed the test")]

mod golden;

use serde::Deserialize;
use serde_json::Value;
use wire::Text;
use wire::buffer::{self, FramingError};
use wire::serialization_strategy::{InvalidHeader, Kind, Strategy};

fn captured<T: serde::de::DeserializeOwned>(file: &str) -> Vec<T> {
    let paths = golden::files().into_iter().filter(|(_, name, _)| name == file).map(|(.., path)| path);
    let read = |path| serde_json::from_slice::<Vec<T>>(&std::fs::read(path).unwrap()).unwrap();
    let captured: Vec<T> = paths.flat_map(read).collect();
    assert!(!captured.is_empty(), "there is no {file}");
    captured
}

fn vectors() -> Value {
    let bytes = std::fs::read(golden::root().join("vectors/serialization.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[derive(Deserialize)]
struct Tried {
    packed: String,
    result: Option<Vec<Value>>,
    error: Option<String>,
}

#[test]
fn packs_as_the_sdk_packs() {
    #[derive(Deserialize)]
    struct Packed {
        buffers: Vec<String>,
        packed: String,
    }
    for Packed { buffers, packed } in captured("buffers-packed.json") {
        let buffers: Vec<_> = buffers.iter().map(String::as_str).collect();
        assert_eq!(buffer::pack(&buffers), packed);
        assert_eq!(buffer::split(&packed).unwrap(), buffers);
    }
}

#[test]
fn splits_as_strictly_as_the_sdk() {
    for Tried { packed, result, error } in captured("buffers-split.json") {
        let ours = buffer::split(&packed);
        match (result, error) {
            (Some(theirs), None) => assert_eq!(Value::from(ours.unwrap()), Value::from(theirs)),
            (None, Some(error)) => {
                let same = match ours.unwrap_err() {
                    FramingError::NoNewline { .. } => "Missing newline",
                    FramingError::NotALength { .. } => "ength delimiter",
                    FramingError::Truncated { .. } => "Truncated buffer",
                    FramingError::WrongCount(_) => "no such error here",
                };
                assert!(error.contains(same), "{packed:?}: {error}, not {same}");
            }
            _ => unreachable!("an attempt has one outcome"),
        }
    }
}

#[test]
fn splits_a_task_as_leniently_as_a_worker() {
    for Tried { packed, result, error } in captured("buffers-task.json") {
        let ours = buffer::split_task(&packed);
        let error = error.unwrap_or_default();
        if let Some(theirs) = result {
            let call = ours.unwrap();
            let ours: Vec<Value> = [call.function, call.args, call.kwargs]
                .iter()
                .map(|buffer| serde_json::from_str(buffer.strip_prefix("11\n").unwrap()).unwrap())
                .collect();
            assert_eq!(ours, theirs);
        } else if error.contains("Unpack expects 3 buffers, got") {
            let count = error.rsplit(' ').next().unwrap().parse().unwrap();
            assert_eq!(ours, Err(FramingError::WrongCount(count)), "{packed:?}");
        } else if error.contains("invalid literal for int()") {
            assert!(matches!(ours, Err(FramingError::NotALength { .. })), "{packed:?}: {ours:?}");
        } else {
            // It can be split. That the content is malformed, the worker finds out.
            assert!(error.contains("JSONDecodeError"), "{error}");
        }
    }
}

#[test]
fn a_length_beyond_the_end() {
    let packed = "4\n11\n16\n11\n[2]100\n11\n{\"é\": 3}";
    assert_eq!(buffer::split_task(packed).unwrap().kwargs, "11\n{\"é\": 3}");
    assert_eq!(buffer::split(packed), Err(FramingError::Truncated { index: 2, length: 100, present: 11 }));
    let huge = format!("{}\nx", usize::MAX);
    assert_eq!(
        buffer::split(&huge),
        Err(FramingError::Truncated { index: 0, length: usize::MAX, present: 1 })
    );
    assert_eq!(buffer::split_task(&huge), Err(FramingError::WrongCount(1)));
    let beyond = format!("{}0\nx", usize::MAX);
    assert!(matches!(buffer::split(&beyond), Err(FramingError::NotALength { index: 0, .. })));
}

#[test]
fn lengths_count_characters() {
    let packed = vectors()["packing"]["packed_unicode_len_is_codepoints"].as_str().unwrap().to_owned();
    let buffers = buffer::split(&packed).unwrap();
    assert_eq!(buffers, ["st\nf:def f():\n    return \"é😀\"\n"]);
    assert_eq!(buffer::pack(&buffers), packed);
    assert_eq!(buffer::from_source("f", "def f():\n    return \"é😀\"\n"), packed);
}

#[test]
fn a_task_buffer_consists_of_code_and_payload() {
    let vectors = vectors();
    let packing = &vectors["packing"];
    let code = buffer::from_source("add", "def add(x, y=1):\n    return x + y\n");
    let payload = buffer::pack(&["11\n[40]", "11\n{\"y\": 2}"]);
    let whole = packing["packed_json"].as_str().unwrap();
    let (plain_code, plain_payload) = (Text::from(code.as_str()), Text::from(payload.as_str()));
    let (json_code, json_payload) = (plain_code.to_json(), plain_payload.to_json());
    let escaped = |json| Text::from_json(json).unwrap();
    for code in [plain_code.clone(), escaped(&json_code)] {
        for payload in [plain_payload.clone(), escaped(&json_payload)] {
            assert_eq!(buffer::task_buffer(&code, &payload), whole);
        }
    }
    let call = buffer::split_task(whole).unwrap();
    assert_eq!(Strategy::of(call.function).unwrap().0, Strategy::PureSourceTextInspect);

    let dill = packing["packed_dill"].as_str().unwrap();
    let call = buffer::split_task(dill).unwrap();
    assert_eq!(Strategy::of(call.function).unwrap().0, Strategy::DillCode);
    assert_eq!(call.args, packing["args_(40,)"].as_str().unwrap());
    assert_eq!(call.kwargs, packing["kwargs_{'y':2}"].as_str().unwrap());
    assert_eq!(buffer::pack(&[call.function, call.args, call.kwargs]), dill);
}

#[test]
fn strategies_are_those_of_the_sdk() {
    #[derive(Deserialize)]
    struct Class {
        name: String,
        identifier: String,
        for_code: bool,
    }
    let classes: Vec<Class> = captured("strategies.json");
    for class in &classes {
        let strategy = Strategy::from_identifier(class.identifier.trim_end()).unwrap();
        assert_eq!(strategy.name(), class.name);
        assert_eq!(strategy.kind() == Kind::Code, class.for_code);
        assert_eq!(Strategy::from_import_path(&strategy.import_path()), Some(strategy));
        let short = format!("globus_compute_sdk.serialize.{}", class.name);
        assert_eq!(Strategy::from_import_path(&short), Some(strategy));
    }
    for strategy in Strategy::ALL {
        assert!(classes.iter().any(|class| class.name == strategy.name()), "{strategy} is not the SDK's");
    }
    assert_eq!(Strategy::from_import_path("globus_compute_sdk.serialize.concretes.concretes.JSONData"), None);
    assert_eq!(Strategy::from_import_path("os.system"), None);
}

#[test]
fn a_buffer_names_its_strategy() {
    let vectors = vectors();
    for (name, text) in vectors["strategies"].as_object().unwrap() {
        let (strategy, body) = Strategy::of(text.as_str().unwrap()).unwrap();
        assert_eq!(strategy.name(), name.split('/').next().unwrap());
        if matches!(strategy, Strategy::AllCodeStrategies | Strategy::AllDataStrategies) {
            let members = buffer::split(body).unwrap();
            assert!(members.iter().all(|member| Strategy::of(member).unwrap().0.kind() == strategy.kind()));
            assert_eq!(buffer::pack(&members), body);
        }
    }
    for case in ["bad_header", "short_header"] {
        let text = vectors["errors"][case][0].as_str().unwrap();
        let Err(InvalidHeader(shown)) = Strategy::of(text) else { panic!("{text:?} has a header") };
        let theirs = vectors["errors"][case][1].as_str().unwrap();
        assert!(theirs.contains(&format!("Invalid header: {shown} in data payload")), "{theirs}");
    }
    assert!(Strategy::of("é1\nx").is_err() && Strategy::of("00").is_err() && Strategy::of("").is_err());
    let malformed = vectors["errors"]["combo_malformed"][0].as_str().unwrap();
    let (_, body) = Strategy::of(malformed).unwrap();
    assert_eq!(Strategy::of(buffer::split(body).unwrap()[0]), Err(InvalidHeader("abc".to_owned())));
}
