//! What must hold of the codecs for any bytes. The fuzzer looks for bytes for which it does not hold; the tests replay
//! its seeds.

use wire::message::{self, Message};
use wire::serialization_strategy::Strategy;
use wire::{Text, buffer};

/// A message that was read is written as one that is read as the same value.
pub fn message(bytes: &[u8]) {
    let Ok(message) = message::decode(bytes) else { return };
    let written = message::encode(&message);
    let again = message::decode(&written).expect("what was written is a message");
    assert!(again == message, "it reads otherwise the second time");
    assert!(message::encode(&again) == written, "it is written otherwise the second time");
    if let Message::Task(task) = &again {
        let buffer = task.task_buffer.to_str();
        buffers(&buffer);
        let plain = Text::from(&*buffer).to_json().into_owned();
        assert!(Text::from_json(&plain) == Ok(Text::from(&*buffer)), "its content does not survive escaping");
    }
}

/// Buffers that can be split strictly are split leniently into the same, and can be packed again.
pub fn buffers(packed: &str) {
    let lenient = buffer::split_task(packed);
    let Ok(buffers) = buffer::split(packed) else { return };
    if let [function, args, kwargs] = buffers[..] {
        assert!(lenient == Ok(buffer::Call { function, args, kwargs }), "two readers disagree");
    } else {
        assert!(lenient == Err(buffer::FramingError::WrongCount(buffers.len())), "two readers disagree");
    }
    assert!(buffer::split(&buffer::pack(&buffers)).as_ref() == Ok(&buffers), "it can't be packed again");
    for buffer in buffers {
        drop(Strategy::of(buffer));
    }
}
