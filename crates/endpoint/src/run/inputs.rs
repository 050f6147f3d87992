//! What events of the engine and of the spool mean to the interchange.

use crate::interchange::Input;
use crate::spool::SpoolEvent;

pub(super) fn of_engine(event: engine::Event) -> Input {
    match event {
        engine::Event::Assigned(tasks) => Input::Assigned(tasks),
        engine::Event::Placed { task, block } => Input::Placed { task, block },
        engine::Event::Ended { task, result } => Input::Ended { task, result: result.into() },
        engine::Event::Returned(tasks) => Input::Returned(tasks),
        engine::Event::BadState { text } => {
            tracing::error!("the engine can't run tasks any more: {text}");
            Input::EngineFailed
        }
    }
}

pub(super) fn of_spool(event: SpoolEvent) -> Input {
    match event {
        SpoolEvent::Kept { task, result } => Input::Kept { task, result },
        SpoolEvent::NotKept { task, result, error } => {
            tracing::error!(%task, %error, "a result can't be kept on storage; it is held in memory until it is sent");
            Input::NotKept { task, result }
        }
        SpoolEvent::Found { tasks, last } => Input::ResultsFound { tasks, last },
        SpoolEvent::Loaded { task, result } => {
            let result = result
                .inspect_err(|error| tracing::error!(%task, %error, "a result in the spool can't be read"));
            Input::Loaded { task, result: result.ok() }
        }
    }
}
