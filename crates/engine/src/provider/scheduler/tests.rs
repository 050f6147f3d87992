//! What holds for every scheduler.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::poll::Poll;
use super::recordings::{ids, poll, said, scheduler};
use super::{Answer, BatchJob, CommandLine, Outcome, Scheduler, Verdict};
use crate::provider::SubmitError;

const CLASSES: [&str; 6] = [
    "SlurmProvider",
    "PBSProProvider",
    "TorqueProvider",
    "LSFProvider",
    "GridEngineProvider",
    "CondorProvider",
];

fn all() -> Vec<Box<dyn Scheduler>> {
    CLASSES.into_iter().map(|class| scheduler(class, json!({}))).collect()
}

/// What a provider of Parsl does (`tests/engine/make_providers.py`).
#[derive(serde::Deserialize)]
struct Golden {
    provider: String,
    options: Value,
    directives: Vec<String>,
    calls: Vec<String>,
}

/// Directives that Parsl does not write: the name by which a job is found.
const OURS: [&str; 2] = ["#$ -N NAME", "batch_name = NAME"];

/// A line of Parsl as we write it. HTCondor takes whole megabytes.
fn as_ours(line: &str) -> String {
    line.replace("RequestMemory = 2560.0", "RequestMemory = 2560")
}

fn job(scripts: &str) -> BatchJob {
    BatchJob {
        name: "NAME".into(),
        scripts: PathBuf::from(scripts),
        worker_init: "module load python".into(),
        command: "COMMAND".into(),
        transferred: None,
    }
}

fn line(command: &CommandLine) -> String {
    let words = std::iter::once(command.program).chain(command.arguments.iter().map(String::as_str));
    words.collect::<Vec<_>>().join("|")
}

#[test]
fn scripts_and_command_lines_are_those_of_parsl() {
    let golden: Vec<Golden> =
        serde_json::from_str(include_str!("../../../tests/golden/providers.json")).unwrap();
    assert!(CLASSES.iter().all(|class| golden.iter().any(|golden| golden.provider == *class)));
    for golden in golden {
        let scheduler = scheduler(&golden.provider, golden.options.clone());
        let files = scheduler.files(&job("/scripts"));
        let submitted = files.last().unwrap();
        let prefix = match golden.provider.as_str() {
            "SlurmProvider" => "#SBATCH",
            "PBSProProvider" | "TorqueProvider" => "#PBS",
            "LSFProvider" => "#BSUB",
            "GridEngineProvider" => "#$",
            _ => "",
        };
        let spaces = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let directives: Vec<String> = submitted
            .text
            .lines()
            .map(spaces)
            .filter(|line| line.starts_with(prefix) && !line.is_empty() && !OURS.contains(&line.as_str()))
            .collect();
        let expected: Vec<String> = golden.directives.iter().map(|line| as_ours(line)).collect();
        assert_eq!(directives, expected, "{} {}", golden.provider, golden.options);
        let id = scheduler.read_submit(&said(0, answer_of(&golden.provider), "")).unwrap();
        let mut calls = vec![line(&scheduler.submit(&submitted.path))];
        calls.extend(scheduler.cancel(&[id]).iter().map(line));
        assert_eq!(calls, golden.calls, "{} {}", golden.provider, golden.options);
    }
}

fn answer_of(provider: &str) -> &'static str {
    match provider {
        "SlurmProvider" => "Submitted batch job 7\n",
        "LSFProvider" => "Job <7> is submitted to queue <normal>.\n",
        "GridEngineProvider" => "7\n",
        "CondorProvider" => "Submitting job(s).\n1 job(s) submitted to cluster 7.\n",
        _ => "7.server\n",
    }
}

#[test]
fn the_shell_reads_directives_before_anything_else_and_runs_worker_init_first() {
    for scheduler in all() {
        let files = scheduler.files(&job("/a b/scripts"));
        let script = &files[0].text;
        let at = |words: &str| script.find(words).unwrap_or_else(|| panic!("{words}: {script}"));
        assert!(at("module load python") < at("export JOBNAME=NAME") && at("export JOBNAME") < at("COMMAND"));
        let commands = script.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let first_command = commands.clone().find(|line| !line.starts_with("trap "));
        assert_eq!(commands.count() > 3, scheduler.name() == "Grid Engine", "only Grid Engine's has a trap");
        assert_eq!(first_command, Some("module load python"), "{}", scheduler.name());
        let output = scheduler.output(Path::new("/a b/scripts"), "NAME");
        assert!(output.stderr.to_string_lossy().ends_with(".stderr") && output.stdout != output.stderr);
        let path = output.stderr.to_string_lossy().into_owned();
        assert!(files.iter().any(|file| file.text.contains(&path)), "{}", scheduler.name());
    }
}

#[test]
fn variables_reach_htcondors_jobs_as_they_are() {
    let condor =
        scheduler("CondorProvider", json!({"environment": {"A": "it's \"x\" $HOME"}, "project": "mine"}));
    let description = condor.files(&job("/s")).remove(1).text;
    // HTCondor doubles quotation marks of both kinds. A word without them would be an attribute's name.
    for line in ["\"A='it''s \"\"x\"\" $HOME' JOBNAME='NAME'\"\n", "+projectname            = \"mine\"\n"] {
        assert!(description.contains(line), "{description}");
    }
}

#[test]
fn memory_and_cores_reach_the_nodes() {
    let slurm = scheduler("SlurmProvider", json!({"mem_per_node": 64, "cores_per_node": 16}));
    let condor = scheduler("CondorProvider", json!({"mem_per_slot": 2.5, "cores_per_slot": 4}));
    for (scheduler, memory, cores) in [(slurm, "64", "16"), (condor, "2.5", "4")] {
        let script = scheduler.files(&job("/s")).remove(0).text;
        let exports =
            format!("module load python\nexport PARSL_MEMORY_GB={memory}\nexport PARSL_CORES={cores}\n");
        assert!(script.contains(&exports), "{script}");
    }
}

fn silent(outcome: Outcome) -> Answer {
    Answer { outcome, stdout: Vec::new(), stderr: Vec::new(), complete: true }
}

#[test]
fn a_command_that_did_not_answer_says_nothing_of_jobs() {
    let limit = Duration::from_secs(10);
    for scheduler in all() {
        let name = scheduler.name();
        for outcome in [
            Outcome::TimedOut(limit),
            Outcome::Killed(9),
            Outcome::NoProgram,
            Outcome::NotStarted("too many open files".into()),
            Outcome::Exited(1),
            Outcome::Exited(255),
        ] {
            let answer = silent(outcome.clone());
            assert!(poll(&*scheduler, &["7"], vec![answer.clone()]).is_err(), "{name} {outcome:?}");
            assert!(scheduler.read_find("NAME", &answer).is_err(), "{name} {outcome:?}");
            assert!(scheduler.read_cancel(&ids(&["7"]), &answer).is_err(), "{name} {outcome:?}");
        }
        // What was cut off is not missing.
        let cut = Answer { complete: false, ..said(0, "", "") };
        if let Ok(verdicts) = poll(&*scheduler, &["7"], vec![cut]) {
            assert!(!verdicts.values().any(|verdict| matches!(verdict, Verdict::Absent(_))), "{name}");
        }
        assert!(Poll::new(&*scheduler, &[]).command().is_none(), "without jobs, nothing is asked");
    }
}

#[test]
fn a_submission_says_whether_there_is_a_job() {
    for scheduler in all() {
        let name = scheduler.name();
        let read = |answer: Answer| scheduler.read_submit(&answer).unwrap_err();
        let limit = Duration::from_secs(10);
        for lost in [Outcome::TimedOut(limit), Outcome::Killed(15), Outcome::Exited(0)] {
            assert!(matches!(read(silent(lost)), SubmitError::Unknown(_)), "{name}");
        }
        let SubmitError::Refused(words) = read(silent(Outcome::NoProgram)) else { panic!("{name}") };
        assert!(words.starts_with("there is no ") && words.contains("PATH"), "{words}");
        let nonsense = read(said(1, "", "Ungültige Warteschlange »é«\n"));
        assert_eq!(nonsense, SubmitError::Refused("Ungültige Warteschlange »é«".into()), "{name}");
        let SubmitError::Unknown(words) = read(silent(Outcome::TimedOut(limit))) else { panic!("{name}") };
        assert!(words.contains("within 10 s (cmd_timeout)"), "{words}");
    }
}

#[test]
fn one_command_asks_for_a_thousand_jobs() {
    let many: Vec<String> = (1..=1000).map(|number| format!("{number}.0")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for scheduler in all() {
        let poll = Poll::new(&*scheduler, &ids(&many));
        let command = poll.command().unwrap();
        // The system's limit of one argument is 128 KiB.
        assert!(command.arguments.iter().all(|word| word.len() < 16 << 10), "{}", scheduler.name());
    }
}

#[test]
fn questions_are_asked_by_id_and_by_name() {
    let format = "--states=all|--format=%i|%T|%r|%S|%j";
    let fields = "jobid stat exit_code exit_reason pend_reason estimated_start_time job_name delimiter='|'";
    let attributes = "-json|-attributes|ClusterId,ProcId,JobStatus,HoldReason,HoldReasonCode,ExitCode,ExitBySignal,\
                      ExitSignal,RemoveReason,JobBatchName";
    for (class, status, find) in [
        (
            "SlurmProvider",
            format!("squeue|--noheader|{format}|--jobs=7,8"),
            format!("squeue|--noheader|{format}|--name=NAME"),
        ),
        ("PBSProProvider", "qstat|-x|-f|-F|json|7|8".into(), "qselect|-N|NAME".into()),
        ("TorqueProvider", "qstat|-f|7|8".into(), "qselect|-N|NAME".into()),
        (
            "LSFProvider",
            format!("bjobs|-noheader|-o|{fields}|7|8"),
            "bjobs|-noheader|-a|-J|NAME|-o|jobid".into(),
        ),
        ("GridEngineProvider", "qstat|-xml|-s|prs|-u|$user".into(), "qstat|-xml|-s|prs|-u|$user".into()),
        (
            "CondorProvider",
            format!("condor_q|7|8|{attributes}"),
            format!("condor_q|-constraint|JobBatchName == \"NAME\"|{attributes}"),
        ),
    ] {
        let scheduler = scheduler(class, json!({}));
        let asked = scheduler.status(&ids(&["7", "8"])).command;
        assert_eq!((line(&asked), line(&scheduler.find("NAME"))), (status, find));
        for command in [asked, scheduler.find("NAME")] {
            assert!(command.environment.set.contains(&("LC_ALL", "C")), "{class}: its output is read");
            assert!(scheduler.programs().contains(&command.program), "{class}");
        }
        let submit = scheduler.submit(Path::new("/s/x"));
        assert!(submit.environment.set.is_empty(), "{class}: jobs inherit the environment");
        assert!(scheduler.programs().contains(&submit.program), "{class}");
        assert_eq!(scheduler.keeps_ended(), class == "CondorProvider");
    }
}

#[test]
fn values_of_options_stay_one_word_each() {
    let options = json!({"queue": "a b; rm -rf /", "account": "$(id)"});
    for class in ["PBSProProvider", "TorqueProvider"] {
        let command = scheduler(class, options.clone()).submit(Path::new("/s/x y"));
        assert_eq!(line(&command), "qsub|-q|a b; rm -rf /|-A|$(id)|/s/x y");
    }
    let lsf = scheduler("LSFProvider", json!({"bsub_redirection": true}));
    let command = lsf.submit(Path::new("/s/x y"));
    assert_eq!((line(&command), command.stdin), ("bsub".into(), Some(PathBuf::from("/s/x y"))));
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        (-1..300i32).prop_map(Outcome::Exited),
        Just(Outcome::Exited(0)),
        Just(Outcome::Killed(9)),
        Just(Outcome::TimedOut(Duration::from_secs(1))),
        Just(Outcome::NoProgram),
    ]
}

/// Bytes, and pieces of what schedulers print, in any order.
fn output() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: [&str; 32] = [
        "7|RUNNING|None|N/A|x\n",
        "CLUSTER: a\n",
        "7|",
        "|",
        "\n",
        "{",
        "}",
        "\"Jobs\":{",
        "\"7.pbs\":{\n",
        "    \"Jobs\":{\n",
        "        \"7\":{\n",
        "            \"job_state\":\"F\",\n",
        "\"",
        "\\",
        "Job Id: 7\n",
        "    job_state = C\n",
        "\t",
        "Job <7> is not found\n",
        "7|EXIT|",
        "<job_list",
        "<job_info>",
        "</job_info>",
        "<JB_job_number>7</JB_job_number>",
        "<state>",
        "=====",
        "jobnumber 7",
        "failed 37 : ",
        "exit_status 137",
        "[{\"ClusterId\":7",
        "qstat: Unknown Job Id 7\n",
        "é",
        "\u{0}",
    ];
    let piece = prop_oneof![
        3 => proptest::sample::select(&PIECES[..]).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nothing_that_a_scheduler_prints_makes_reading_panic_or_go_on_without_end(
        outcome in outcome(),
        stdout in output(),
        stderr in output(),
        complete in any::<bool>(),
    ) {
        let answer = Answer { outcome, stdout, stderr, complete };
        for scheduler in all() {
            let _ = scheduler.read_submit(&answer);
            let _ = scheduler.read_find("NAME", &answer);
            let _ = scheduler.read_cancel(&ids(&["7", "8.pbs"]), &answer);
            let mut poll = Poll::new(&*scheduler, &ids(&["7", "8.pbs", "9;a", "7.0"]));
            let mut steps = 0;
            while poll.command().is_some() && poll.answer(&answer).is_ok() {
                steps += 1;
                prop_assert!(steps <= 65);
            }
            prop_assert!(poll.finish().len() <= 4);
        }
    }
}
