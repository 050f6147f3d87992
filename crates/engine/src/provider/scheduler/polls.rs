//! Polls of several questions, where one recording alone does not show what becomes of a job.

use serde_json::json;

use super::Scheduler;
use super::poll::Poll;
use super::recordings::{answer, ids, poll, said, scheduler, table};
use super::{Answer, Verdict};
use crate::provider::JobId;

fn slurm(clusters: Option<&str>) -> Box<dyn Scheduler> {
    scheduler("SlurmProvider", json!({ "clusters": clusters }))
}

#[test]
fn accounting_tells_how_jobs_ended() {
    let jobs = ["55", "56", "57", "58", "59", "61"];
    let answers = vec![answer("slurm-22.05.8/endings"), answer("slurm-22.05.8/endings-sacct")];
    assert_eq!(
        table(&jobs, &poll(&*slurm(None), &jobs, answers).unwrap()),
        [
            "55 ended Failed status 3: FAILED: NonZeroExitCode",
            "56 ended Completed status 0: COMPLETED",
            "57 ended Failed signal 9: FAILED: JobLaunchFailure",
            "58 ended OutOfMemory: OUT_OF_MEMORY",
            "59 running",
            "61 ended Cancelled { by: Some(\"the user with id 0\") }: CANCELLED",
        ]
    );
}

#[test]
fn without_accounting_the_controller_tells_how_jobs_ended() {
    let jobs = ["18", "19", "20", "21", "999999"];
    let slurm = slurm(None);
    let mut poll = Poll::new(&*slurm, &ids(&jobs));
    let mut asked = Vec::new();
    while let Some(command) = poll.command() {
        asked.push(format!("{} {}", command.program, command.arguments.last().unwrap()));
        let recording = match command.program {
            "squeue" => "squeue-many",
            "sacct" => "sacct-many",
            _ if command.arguments.contains(&"18".to_owned()) => "scontrol-show-failed",
            _ if command.arguments.contains(&"20".to_owned()) => "scontrol-show-killed",
            _ => "scontrol-show-unknown",
        };
        poll.answer(&answer(&format!("slurm-24.11.5/{recording}"))).unwrap();
    }
    // The controller knows nothing of the job that it has denied.
    assert_eq!(
        asked,
        [
            "squeue --jobs=18,19,20,21,999999",
            "sacct --jobs=18,19,20,999999",
            "scontrol 18",
            "scontrol 19",
            "scontrol 20"
        ]
    );
    assert_eq!(
        table(&jobs, &poll.finish()),
        [
            "18 ended Failed status 3: FAILED: NonZeroExitCode",
            "19 ended Completed: COMPLETED",
            "20 ended Failed signal 9: FAILED: RaisedSignal:9(Killed)",
            "21 running",
            "999999 absent",
        ]
    );
}

#[test]
fn accounting_tells_of_jobs_that_the_controller_has_forgotten() {
    let jobs = ["7", "8", "9"];
    let sacct = "7|TIMEOUT|0:0|test|a\n8|RUNNING|0:0|test|b\n";
    let answers = vec![said(0, "", ""), said(0, sacct, "")];
    assert_eq!(
        table(&jobs, &poll(&*slurm(None), &jobs, answers).unwrap()),
        ["7 absent, ended TimedOut: TIMEOUT", "8 absent", "9 absent"]
    );
}

#[test]
fn what_runs_on_another_cluster_of_a_federation_has_not_ended() {
    let jobs = ["67108933"];
    let recorded = |name: &str| answer(&format!("slurm-22.05.8-federation/{name}"));
    for (siblings, read) in [
        ("squeue-siblings", "67108933 running"),
        ("squeue-siblings-cancelled", "67108933 ended Cancelled { by: None }: CANCELLED"),
        // The cluster of the sibling is down, and nothing says so.
        ("squeue-siblings-away", "67108933 ?"),
        ("squeue-siblings-unknown", "67108933 ?"),
    ] {
        let answers = vec![recorded("squeue-revoked"), recorded(siblings)];
        assert_eq!(table(&jobs, &poll(&*slurm(None), &jobs, answers).unwrap()), [read], "{siblings}");
    }
    let several = slurm(Some("other,test"));
    let jobs = ["67108933;test"];
    let found = poll(&*several, &jobs, vec![recorded("squeue-both-clusters")]).unwrap();
    assert_eq!(table(&jobs, &found), ["67108933;test running"]);
}

#[test]
fn one_cluster_that_denies_a_job_does_not_speak_for_one_that_is_away() {
    let several = slurm(Some("a,b"));
    let list = "CLUSTER: a\n\nCLUSTER: b\n";
    let denial = "slurm_load_jobs error: Invalid job id specified\n";
    let away = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n";
    let jobs = ["7;a"];
    assert!(poll(&*several, &jobs, vec![said(1, list, &format!("{away}{denial}"))]).is_err());
    let found = poll(&*several, &jobs, vec![said(1, list, &format!("{denial}{denial}"))]).unwrap();
    assert_eq!(table(&jobs, &found), ["7;a absent"]);
}

#[test]
fn a_job_is_found_where_it_lives() {
    let list = "CLUSTER: other\n134217734|RUNNING|None|N/A|NAME\n\nCLUSTER: test\n4294967294|REVOKED|None|N/A|NAME\n";
    let again = "CLUSTER: other\n8|CANCELLED|None|N/A|NAME\n9|PENDING|None|N/A|NAME\n\nCLUSTER: test\n";
    let several = slurm(Some("other,test"));
    for (list, id) in [(list, "134217734;other"), (again, "9;other")] {
        assert_eq!(several.read_find("NAME", &said(0, list, "")), Ok(Some(JobId(id.into()))));
    }
    let revoked = said(0, "67108933|REVOKED|None|N/A|NAME\n4294967294|REVOKED|None|N/A|NAME\n", "");
    assert_eq!(slurm(None).read_find("NAME", &revoked), Ok(Some(JobId("67108933".into()))));
    let part = said(0, "CLUSTER: test\n", "");
    assert!(several.read_find("NAME", &part).is_err(), "the other cluster was not asked");
}

#[test]
fn the_same_number_on_another_cluster_is_another_job() {
    let several = slurm(Some("a,b"));
    let jobs = ["7;a"];
    let list = "CLUSTER: a\n\nCLUSTER: b\n7|RUNNING|None|N/A|OTHER\n";
    assert_eq!(table(&jobs, &poll(&*several, &jobs, vec![said(0, list, "")]).unwrap()), ["7;a absent"]);
    let stranger = "CLUSTER: a\n7|REVOKED|None|N/A|NAME\n\nCLUSTER: b\n7|RUNNING|None|N/A|OTHER\n";
    assert_eq!(table(&jobs, &poll(&*several, &jobs, vec![said(0, stranger, "")]).unwrap()), ["7;a ?"]);
}

#[test]
fn jobs_of_each_cluster_are_cancelled_there_alone() {
    let commands = slurm(Some("a,b")).cancel(&ids(&["7;a", "8;b", "9;a", "10"]));
    let lines: Vec<_> = commands.iter().map(|command| command.arguments.join(" ")).collect();
    assert_eq!(lines, ["--clusters=a,b 10", "--clusters=a 7 9", "--clusters=b 8"]);
}

#[test]
fn without_job_history_absence_in_a_successful_answer_is_the_end() {
    let jobs = ["121.pbs", "122.pbs", "134.pbs"];
    let pbs = scheduler("PBSProProvider", json!({}));
    let plain = "{\"pbs_version\":\"23.06.06\",\"Jobs\":{\"121.pbs\":{\"job_state\":\"R\"}}}";
    let answers = vec![
        answer("openpbs-23.06.06/historyoff-qstat-x-f-json-mixed.qstat-v23.06.06"),
        said(153, plain, "qstat: Unknown Job Id 122.pbs\n"),
    ];
    assert_eq!(
        table(&jobs, &poll(&*pbs, &jobs, answers).unwrap()),
        ["121.pbs running", "122.pbs absent", "134.pbs ?"],
        "a job that no line speaks of is asked for again"
    );
}

#[test]
fn jobs_that_one_release_of_pbs_leaves_out_are_asked_for_alone() {
    let jobs = ["95.pbs", "4.pbs", "5.pbs"];
    let pbs = scheduler("PBSProProvider", json!({}));
    let answers = vec![
        answer("openpbs-23.06.06/qstat-x-f-json-running"),
        answer("openpbs-23.06.06/qstat-x-f-json-finished-ok"),
        answer("openpbs-23.06.06/qstat-x-f-json-exit3"),
    ];
    assert_eq!(
        table(&jobs, &poll(&*pbs, &jobs, answers).unwrap()),
        [
            "95.pbs running",
            "4.pbs ended Completed status 0: Job run at Sun Nov 29 at 23:42 on (node1:ncpus=1) and finished",
            "5.pbs ended Failed status 3: Job run at Sun Nov 29 at 23:42 on (node1:ncpus=1) and failed",
        ]
    );
}

/// The released `qstat` prints no JSON when one job has odd text.
#[test]
fn one_job_that_spoils_the_json_hides_no_other() {
    let recording = answer("openpbs-23.06.06/qstat-x-f-json-all-incl-weird.qstat-v23.06.06");
    assert!(serde_json::from_slice::<serde_json::Value>(&recording.stdout).is_err());
    let jobs: Vec<String> = (0..=92).map(|number| format!("{number}.pbs")).collect();
    let jobs: Vec<&str> = jobs.iter().map(String::as_str).collect();
    let found = poll(&*scheduler("PBSProProvider", json!({})), &jobs, vec![recording.clone()]).unwrap();
    let listed = String::from_utf8_lossy(&recording.stdout)
        .lines()
        .filter(|line| {
            line.starts_with("        \"") && line.ends_with("\":{") && !line.starts_with("         ")
        })
        .filter(|line| jobs.iter().any(|id| line.contains(&format!("\"{id}\""))))
        .count();
    assert!(listed > 60 && found.len() == listed, "{listed} {}", found.len());
}

#[test]
fn grid_engine_asks_its_accounting_for_each_job_that_has_left() {
    let jobs = ["3", "6", "11"];
    let engine = scheduler("GridEngineProvider", json!({}));
    let answers = vec![
        answer("gridengine-8.1.9/qstat-xml-none"),
        answer("gridengine-8.1.9/qacct-fail"),
        answer("gridengine-8.1.9/qacct-timeout"),
        answer("gridengine-8.1.9/qacct-running"),
    ];
    assert_eq!(
        table(&jobs, &poll(&*engine, &jobs, answers).unwrap()),
        [
            "3 absent, ended Failed status 3: ",
            "6 absent, ended TimedOut signal 9: qmaster enforced h_rt, h_cpu, or h_vmem limit",
            "11 absent",
        ]
    );
}

#[test]
fn a_poll_has_a_bound_of_commands() {
    let many: Vec<String> = (1..=500).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let engine = scheduler("GridEngineProvider", json!({}));
    let mut poll = Poll::new(&*engine, &ids(&many));
    let mut commands = 0;
    while poll.command().is_some() {
        commands += 1;
        poll.answer(&answer("gridengine-8.1.9/qstat-xml-none")).unwrap();
    }
    assert_eq!(commands, 65);
    assert_eq!(poll.finish().len(), 500, "all of them are known to have left");
}

#[test]
fn words_that_nobody_has_seen_before_do_not_end_a_job() {
    for (class, output) in [
        ("SlurmProvider", "7|QUANTUM|Because|N/A|NAME\n7_1|FAILED|x|y|z\nx|y\n||||\n"),
        (
            "PBSProProvider",
            "{\"pbs_version\":\"99\",\"Jobs\":{\"7\":{\"job_state\":\"Z\"},\"x\":{},\"y\":3}}",
        ),
        ("TorqueProvider", "Job Id: 7.server\n    job_state = Z\nJob Id: \n"),
        ("LSFProvider", "7|QUANTUM|-|-|-|-|NAME\n"),
        (
            "GridEngineProvider",
            "<job_info><job_list state=\"new\"><JB_job_number>7</JB_job_number><state>Q?</state></job_list></job_info>",
        ),
        ("CondorProvider", "[{\"ClusterId\":7,\"ProcId\":0,\"JobStatus\":42}]"),
    ] {
        let id = if class == "CondorProvider" { "7.0" } else { "7" };
        let found = poll(&*scheduler(class, json!({})), &[id], vec![said(0, output, "")]).unwrap();
        let table = table(&[id], &found).remove(0);
        assert!(table.contains("unrecognised"), "{class}: {table}");
    }
}

#[test]
fn jobs_that_full_output_leaves_out_are_read_from_columns() {
    let jobs = ["90", "92", "99999"];
    let recorded = |name: &str| answer(&format!("torque-over-slurm-24.11.5/{name}"));
    let answers =
        vec![recorded("qstat-full"), recorded("qstat-columns-ended"), recorded("qstat-columns-unknown")];
    let torque = scheduler("TorqueProvider", json!({}));
    assert_eq!(
        table(&jobs, &poll(&*torque, &jobs, answers).unwrap()),
        ["90 ended Completed: ", "92 running", "99999 absent"]
    );
}

#[test]
fn a_list_of_grid_engine_that_breaks_off_says_nothing() {
    let engine = scheduler("GridEngineProvider", json!({}));
    let whole = answer("gridengine-8.1.9/qstat-xml-many");
    let half = said(0, &String::from_utf8_lossy(&whole.stdout[..whole.stdout.len() / 2]), "");
    assert!(poll(&*engine, &["1", "10"], vec![half]).is_err());
    assert!(poll(&*engine, &["1"], vec![said(0, "job-ID prior name\n", "")]).is_err());
}

/// What a limit has cut off is not missing: wherever that was, it ends no job that the whole answer shows.
#[test]
fn what_was_cut_off_ends_no_job() {
    for (class, recording, jobs) in [
        ("SlurmProvider", "slurm-24.11.5/squeue-many", ["18", "22", "29", "21"]),
        (
            "PBSProProvider",
            "openpbs-23.06.06/qstat-x-f-json-many.qstat-v23.06.06",
            ["95.pbs", "4.pbs", "17.pbs", "101.pbs"],
        ),
        (
            "TorqueProvider",
            "torque-manual/qstat-states",
            ["12.server", "15.server", "18.server", "19.server"],
        ),
        ("LSFProvider", "lsf-manual/bjobs-states", ["101", "107", "110", "115"]),
        ("GridEngineProvider", "gridengine-8.1.9/qstat-xml-many", ["1", "9", "13", "16"]),
        ("CondorProvider", "htcondor-23.9.6/condor_q-many", ["3.0", "5.0", "7.0", "10.0"]),
    ] {
        let scheduler = scheduler(class, json!({}));
        let whole = answer(recording);
        let found = poll(&*scheduler, &jobs, vec![whole.clone()]).unwrap();
        assert!(jobs.iter().all(|id| matches!(found[&JobId((*id).into())], Verdict::Known(_))), "{class}");
        for end in (0..whole.stdout.len()).step_by(whole.stdout.len() / 97 + 1) {
            let cut = Answer { stdout: whole.stdout[..end].to_vec(), complete: false, ..whole.clone() };
            let verdicts = poll(&*scheduler, &jobs, vec![cut]).unwrap_or_default();
            let absent = verdicts.values().any(|verdict| matches!(verdict, Verdict::Absent(_)));
            assert!(!absent, "{class}, cut at {end}");
        }
    }
}
