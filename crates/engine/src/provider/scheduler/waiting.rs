//! Why a block has no nodes yet, for users to read: in the endpoint's status and in their task's own.
//!
//! Schedulers have some hundred words for it; users need to know whether to wait, to ask, or to change something. The
//! scheduler's own word is always kept beside ours, because a site's help desk knows that one.

use std::fmt;

use super::command::shorten;

/// Why a job waits in its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WaitReason {
    /// The scheduler has not said yet.
    NotConsidered,
    /// Other jobs go first.
    Priority,
    /// Not enough nodes, cores, memory or licenses are free.
    Resources,
    /// A limit of the user, account, queue or site is reached for now.
    Limit,
    Held(Holder),
    /// Its time has not come: a begin time, or the pause after a requeue.
    NotBefore,
    Dependency,
    /// The partition or queue takes jobs and starts none.
    QueueStopped,
    /// Nodes that it needs are down, drained or reserved.
    NodesUnavailable,
    Reservation,
    /// The scheduler says that it can never run as it was asked for.
    Never,
    /// It failed to start, and an administrator or the user must release it.
    StartFailed,
    /// A word that this version doesn't know.
    Other,
}

/// Who holds a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    User,
    Administrator,
    Unknown,
}

impl WaitReason {
    /// Whether it is held: until somebody releases it, no time helps.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self, Self::Held(_) | Self::StartFailed)
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotConsidered => "the scheduler has not looked at it yet",
            Self::Priority => "other jobs go first",
            Self::Resources => "not enough is free",
            Self::Limit => "a limit of this user, account or queue is reached",
            Self::Held(Holder::User) => "held by the user; release it with the scheduler's command",
            Self::Held(Holder::Administrator) => "held by an administrator of the cluster",
            Self::Held(Holder::Unknown) => "held until it is released",
            Self::NotBefore => "its time has not come",
            Self::Dependency => "it depends on another job",
            Self::QueueStopped => "its queue starts no jobs at the moment",
            Self::NodesUnavailable => "nodes that it needs are down or reserved",
            Self::Reservation => "it waits for a reservation",
            Self::Never => "it can never run as it was asked for; change the provider's options",
            Self::StartFailed => "it failed to start, and waits to be released",
            Self::Other => "the scheduler gives a reason of its own",
        })
    }
}

/// Why and how long a job waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) reason: WaitReason,
    /// In the scheduler's words; empty when it gives none.
    pub(crate) words: String,
    pub(crate) expected: Option<Expected>,
}

/// When the scheduler expects to start a job, in the cluster's own time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// `2026-11-30`
    pub(crate) date: String,
    /// `14:05`
    pub(crate) time: String,
}

impl Expected {
    /// Reads `2026-11-30T14:05:00`. Schedulers write other things where they expect nothing.
    pub(super) fn from_iso(text: &str) -> Option<Self> {
        let (date, time) = text.trim().split_once('T')?;
        let digits = |text: &str, form: &str| {
            text.len() == form.len()
                && text
                    .bytes()
                    .zip(form.bytes())
                    .all(|(byte, form)| if form == b'0' { byte.is_ascii_digit() } else { byte == form })
        };
        let time = time.get(..5)?;
        (digits(date, "0000-00-00") && digits(time, "00:00"))
            .then(|| Self { date: date.to_owned(), time: time.to_owned() })
    }

    /// Reads `Mon Nov 30 14:05:51 2026`, the form of C's `ctime`.
    pub(super) fn from_ctime(text: &str) -> Option<Self> {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let mut words = text.split_whitespace().skip(1);
        let month = words.next()?;
        let month = MONTHS.iter().position(|name| *name == month)? + 1;
        let day: u32 = words.next()?.parse().ok()?;
        let time = words.next()?;
        let year = words.next()?;
        Self::from_iso(&format!("{year}-{month:02}-{day:02}T{time}"))
    }
}

impl Wait {
    pub(super) fn new(reason: WaitReason, words: &str, expected: Option<Expected>) -> Self {
        Self { reason, words: shorten(words.trim()), expected }
    }
}

/// Why a block has no nodes yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BlockWait {
    /// Its job has been submitted, and the answer is awaited.
    Asking,
    /// The answer was lost: the scheduler is asked whether there is a job.
    Searching,
    /// The scheduler does not answer; in its words.
    SchedulerAway(String),
    Queued {
        job: String,
        wait: Wait,
    },
    /// `max_blocks` is 0.
    NoneAllowed,
    /// Jobs ran and brought no node; the next one is tried later.
    Withdrawn {
        minutes: u64,
    },
}

impl BlockWait {
    /// The line for users. `today` is the date at the cluster; a start on another day is shown with its date.
    pub(crate) fn text(&self, scheduler: &str, today: &str) -> String {
        match self {
            Self::Asking => format!("asking {scheduler} for a block"),
            Self::Searching => {
                format!("asking {scheduler} whether it has the job, because its answer was lost")
            }
            Self::SchedulerAway(words) => format!("{scheduler} does not answer: {words}"),
            Self::NoneAllowed => "no block is allowed: max_blocks is 0".to_owned(),
            Self::Withdrawn { minutes } => {
                format!("blocks ended without a node; the next is tried in {minutes} min")
            }
            Self::Queued { job, wait } => {
                let state = if wait.reason.is_held() { "held" } else { "queued" };
                let mut text = format!("{state} in {scheduler}: job {job}");
                let explained = match &wait.reason {
                    WaitReason::Other if !wait.words.is_empty() => String::new(),
                    WaitReason::Priority | WaitReason::Resources if !wait.words.is_empty() => String::new(),
                    reason => format!(" ({reason})"),
                };
                if wait.words.is_empty() {
                    text.push_str(&format!(", {}", wait.reason));
                } else {
                    text.push_str(&format!(", reason {}{explained}", wait.words));
                }
                if let Some(expected) = &wait.expected {
                    let date =
                        if expected.date == today { String::new() } else { format!("{} ", expected.date) };
                    text.push_str(&format!(", expected start {date}{}", expected.time));
                }
                text
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_says_what_the_scheduler_says_and_what_it_means() {
        let queued = |reason, words: &str, start: Option<&str>| {
            let wait = Wait::new(reason, words, start.and_then(Expected::from_iso));
            BlockWait::Queued { job: "4711".into(), wait }.text("Slurm", "2026-11-30")
        };
        for (line, expected) in [
            (
                queued(WaitReason::Priority, "Priority", Some("2026-11-30T14:05:00")),
                "queued in Slurm: job 4711, reason Priority, expected start 14:05",
            ),
            (
                queued(WaitReason::Resources, "Resources", Some("2026-12-01T04:05:59")),
                "queued in Slurm: job 4711, reason Resources, expected start 2026-12-01 04:05",
            ),
            (
                queued(WaitReason::Held(Holder::Administrator), "JobHeldAdmin", Some("N/A")),
                "held in Slurm: job 4711, reason JobHeldAdmin (held by an administrator of the cluster)",
            ),
            (
                queued(WaitReason::NotConsidered, "", None),
                "queued in Slurm: job 4711, the scheduler has not looked at it yet",
            ),
            (queued(WaitReason::Other, "NewWord", None), "queued in Slurm: job 4711, reason NewWord"),
            (BlockWait::Asking.text("Slurm", ""), "asking Slurm for a block"),
            (
                BlockWait::Searching.text("PBS", ""),
                "asking PBS whether it has the job, because its answer was lost",
            ),
            (BlockWait::SchedulerAway("down".into()).text("PBS", ""), "PBS does not answer: down"),
            (
                BlockWait::Withdrawn { minutes: 5 }.text("PBS", ""),
                "blocks ended without a node; the next is tried in 5 min",
            ),
            (BlockWait::NoneAllowed.text("Slurm", ""), "no block is allowed: max_blocks is 0"),
        ] {
            assert_eq!(line, expected);
        }
    }

    #[test]
    fn both_forms_of_a_time_are_read() {
        let expected = |date: &str, time: &str| Some(Expected { date: date.into(), time: time.into() });
        assert_eq!(Expected::from_ctime("Mon Nov 30 00:06:51 2026"), expected("2026-11-30", "00:06"));
        assert_eq!(Expected::from_ctime("Fri Jan  1 09:06:51 2027"), expected("2027-01-01", "09:06"));
        for nothing in ["", "N/A", "Unknown", "2026-11-30", "T", "2026-11-30T1é:00", "30T2"] {
            assert_eq!((Expected::from_iso(nothing), Expected::from_ctime(nothing)), (None, None));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = (Expected::from_iso(&text), Expected::from_ctime(&text));
            let wait = Wait::new(WaitReason::Other, &text, None);
            BlockWait::Queued { job: text.clone(), wait }.text(&text, &text);
        }
    }
}
