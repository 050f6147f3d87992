//! Converts AMQP tables and properties from and to JSON.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use serde_json::{Map, Value};

/// Values nested deeper are left out: no header that we read is nested.
const DEPTH: usize = 8;

/// The headers of a delivery. What has no JSON form is left out.
pub(crate) fn to_json(properties: &BasicProperties) -> Map<String, Value> {
    match properties.headers() {
        Some(table) => map(table, DEPTH),
        None => Map::new(),
    }
}

fn map(table: &FieldTable, depth: usize) -> Map<String, Value> {
    let member =
        |(name, value): (&ShortString, &AMQPValue)| Some((name.as_str().to_owned(), json(value, depth)?));
    table.inner().iter().filter_map(member).collect()
}

fn json(value: &AMQPValue, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    Some(match value {
        AMQPValue::Boolean(value) => Value::from(*value),
        AMQPValue::ShortShortInt(value) => Value::from(*value),
        AMQPValue::ShortShortUInt(value) => Value::from(*value),
        AMQPValue::ShortInt(value) => Value::from(*value),
        AMQPValue::ShortUInt(value) => Value::from(*value),
        AMQPValue::LongInt(value) => Value::from(*value),
        AMQPValue::LongUInt(value) => Value::from(*value),
        AMQPValue::LongLongInt(value) => Value::from(*value),
        AMQPValue::Timestamp(value) => Value::from(*value),
        AMQPValue::Float(value) => Value::from(*value),
        AMQPValue::Double(value) => Value::from(*value),
        AMQPValue::ShortString(text) => Value::from(text.as_str()),
        AMQPValue::LongString(text) => Value::from(std::str::from_utf8(text.as_bytes()).ok()?),
        AMQPValue::FieldArray(values) => {
            values.as_slice().iter().filter_map(|value| json(value, depth)).collect()
        }
        AMQPValue::FieldTable(table) => Value::Object(map(table, depth)),
        AMQPValue::Void => Value::Null,
        _ => return None,
    })
}

/// The message properties that a service asks for, by their AMQP names. One that can't be set is an error: leaving it out could
/// change what happens to the message.
pub(crate) fn properties(wanted: &Map<String, Value>) -> Result<BasicProperties, String> {
    let mut properties = BasicProperties::default();
    for (name, value) in wanted {
        let wrong = || format!("the message property {name} can't be {value}");
        let text = || value.as_str().and_then(|text| ShortString::try_new(text).ok()).ok_or_else(wrong);
        let small = || value.as_u64().and_then(|number| u8::try_from(number).ok()).ok_or_else(wrong);
        properties = match (name.as_str(), value) {
            (_, Value::Null) => properties,
            ("delivery_mode", _) => properties.with_delivery_mode(small()?),
            ("priority", _) => properties.with_priority(small()?),
            ("content_type", _) => properties.with_content_type(text()?),
            ("content_encoding", _) => properties.with_content_encoding(text()?),
            ("expiration", _) => properties.with_expiration(text()?),
            ("correlation_id", _) => properties.with_correlation_id(text()?),
            ("reply_to", _) => properties.with_reply_to(text()?),
            ("message_id", _) => properties.with_message_id(text()?),
            ("type", _) => properties.with_type(text()?),
            ("user_id", _) => properties.with_user_id(text()?),
            ("app_id", _) => properties.with_app_id(text()?),
            ("timestamp", _) => properties.with_timestamp(value.as_u64().ok_or_else(wrong)?),
            ("headers", Value::Object(headers)) => properties.with_headers(table(headers).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        };
    }
    Ok(properties)
}

/// Headers of plain values.
fn table(headers: &Map<String, Value>) -> Option<FieldTable> {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        let value = match value {
            Value::Null => AMQPValue::Void,
            Value::Bool(value) => AMQPValue::Boolean(*value),
            Value::Number(number) => AMQPValue::LongLongInt(number.as_i64()?),
            Value::String(text) => AMQPValue::LongString(LongString::from(text.as_bytes())),
            Value::Array(_) | Value::Object(_) => return None,
        };
        table.insert(ShortString::try_new(name.as_str()).ok()?, value);
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::FieldArray;
    use serde_json::json;

    #[test]
    fn the_headers_of_a_task_become_json() {
        let mut serializers = FieldArray::default();
        serializers.push(AMQPValue::LongString("globus_compute_sdk.serialize.JSONData".into()));
        let mut headers = FieldTable::default();
        headers.insert("task_uuid".into(), AMQPValue::LongString("t".into()));
        headers.insert("function_uuid".into(), AMQPValue::ShortString("f".into()));
        headers.insert("resource_specification".into(), AMQPValue::Void);
        headers.insert("result_serializers".into(), AMQPValue::FieldArray(serializers));
        headers.insert("not_text".into(), AMQPValue::LongString(LongString::from(&b"\xff"[..])));
        assert_eq!(
            Value::Object(to_json(&BasicProperties::default().with_headers(headers))),
            json!({"task_uuid": "t", "function_uuid": "f", "resource_specification": null,
                   "result_serializers": ["globus_compute_sdk.serialize.JSONData"]})
        );
        assert_eq!(to_json(&BasicProperties::default()), Map::new());
    }

    #[test]
    fn deeply_nested_headers_are_left_out() {
        let mut value = AMQPValue::Boolean(true);
        for _ in 0..100 {
            let mut array = FieldArray::default();
            array.push(value);
            value = AMQPValue::FieldArray(array);
        }
        let mut headers = FieldTable::default();
        headers.insert("deep".into(), value);
        let json = Value::Object(to_json(&BasicProperties::default().with_headers(headers)));
        assert_eq!(json.to_string(), r#"{"deep":[[[[[[[[]]]]]]]]}"#);
    }

    #[test]
    fn properties_are_set_by_name_or_refused_by_name() {
        let wanted = json!({"delivery_mode": 2, "content_type": "a/b", "headers": {"n": 1, "s": "x"}, "priority": null});
        let properties = properties(wanted.as_object().unwrap()).unwrap();
        assert_eq!(properties.delivery_mode(), &Some(2));
        assert_eq!(properties.content_type(), &Some("a/b".into()));
        assert_eq!(Value::Object(to_json(&properties)), json!({"n": 1, "s": "x"}));
        for refused in
            [json!({"delivery_mode": "2"}), json!({"delivery_mode": 300}), json!({"colour": "red"})]
        {
            super::properties(refused.as_object().unwrap()).unwrap_err();
        }
    }
}
