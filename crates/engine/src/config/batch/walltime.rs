//! How long a job may run, in every form that users write and YAML makes of it.
//!
//! YAML 1.1 reads `1:00:00` without quotes as 3600, to the base 60, so a number is seconds.

use serde_json::Value;

/// A time limit of a job. It is never zero, which schedulers read as no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Walltime {
    seconds: u64,
    /// As users wrote it, if schedulers read that.
    text: String,
}

/// The forms that are read, for errors.
const FORMS: &str = "must be HH:MM:SS, days-HH:MM:SS, or a number of seconds, at least one second and at most \
                     10 years";

/// Ten years, in seconds.
const LONGEST: u64 = 10 * 366 * 86_400;

impl Walltime {
    /// A default of a provider.
    pub(super) fn minutes(minutes: u64) -> Self {
        Self::from_seconds(minutes * 60)
    }

    fn from_seconds(seconds: u64) -> Self {
        let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        Self { seconds, text }
    }

    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let read = match value {
            Value::Number(number) => number.as_u64().map(Self::from_seconds),
            Value::String(text) => Self::parse(text.trim()),
            _ => None,
        };
        read.filter(|walltime| (1..=LONGEST).contains(&walltime.seconds))
            .ok_or_else(|| format!("{FORMS}; it is {value}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let number = |part: &str| -> Option<u64> {
            let digits = (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            if digits { part.parse().ok() } else { None }
        };
        if let Some((days, rest)) = text.split_once('-') {
            let mut seconds = number(days)? * 86_400;
            // After days come hours, unlike without them.
            for (part, unit) in rest.split(':').zip([3600, 60, 1, 0]) {
                seconds += number(part).filter(|_| unit > 0)? * unit;
            }
            return Some(Self::from_seconds(seconds));
        }
        let parts: Vec<u64> = text.split(':').map(number).collect::<Option<_>>()?;
        match parts[..] {
            [seconds] => Some(Self::from_seconds(seconds)),
            // What YAML makes of it without quotes, too.
            [minutes, seconds] => Some(Self::from_seconds(minutes * 60 + seconds)),
            [hours, minutes, seconds] => {
                Some(Self { seconds: hours * 3600 + minutes * 60 + seconds, text: text.to_owned() })
            }
            _ => None,
        }
    }

    /// `HH:MM:SS`.
    pub(crate) fn hours(&self) -> &str {
        &self.text
    }

    /// Whole minutes, seconds dropped as upstream drops them; never 0, which would be no limit.
    pub(crate) fn whole_minutes(&self) -> u64 {
        (self.seconds / 60).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_that_yaml_makes_of_a_walltime_is_read() {
        for (written, minutes, hours) in [
            (json!("00:10:00"), 10, "00:10:00"),
            (json!("1:00:00"), 60, "1:00:00"),
            (json!(3600), 60, "01:00:00"),
            (json!("3600"), 60, "01:00:00"),
            (json!("10:30"), 10, "00:10:30"),
            (json!("00:00:30"), 1, "00:00:30"),
            (json!("00:10:59"), 10, "00:10:59"),
            (json!("48:00:00"), 2880, "48:00:00"),
            (json!("2-00:00:00"), 2880, "48:00:00"),
            (json!("1-12"), 2160, "36:00:00"),
            (json!(" 01:00:00 "), 60, "01:00:00"),
        ] {
            let read = Walltime::read(&written).unwrap();
            assert_eq!((read.whole_minutes(), read.hours()), (minutes, hours), "{written}");
        }
    }

    #[test]
    fn what_is_no_walltime_is_named() {
        for written in [
            json!("soon"),
            json!(""),
            json!("0"),
            json!(0),
            json!(-5),
            json!(1.5),
            json!("00:00:00"),
            json!("1:2:3:4"),
            json!("1-2:3:4:5"),
            json!("1:-2:3"),
            json!("UNLIMITED"),
            json!("999999999:00:00"),
            json!(u64::MAX),
            json!([1]),
            json!(true),
        ] {
            let refused = Walltime::read(&written).unwrap_err();
            assert!(refused.contains("HH:MM:SS") && refused.ends_with(&written.to_string()), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), digits in "[0-9:-]{0,40}") {
            let _ = Walltime::read(&Value::String(text));
            if let Ok(read) = Walltime::read(&Value::String(digits)) {
                prop_assert!(read.whole_minutes() > 0 && read.hours().split(':').count() == 3);
            }
        }
    }
}
