//! Whatever happens in whatever order: bounds hold, no user endpoint runs twice, and every command is answered once.

use std::collections::BTreeMap;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Command { user_endpoint: u128, person: u128 },
    Map { nth: usize, found: bool },
    Spawn { nth: usize, works: bool },
    Report { nth: usize, fails: bool },
    Exit { nth: usize, code: i32 },
    Later(u64),
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let nth = || 0_usize..8;
    prop_oneof![
        8 => (2_u128..8, 10_u128..13).prop_map(|(user_endpoint, person)| Step::Command { user_endpoint, person }),
        8 => (nth(), any::<bool>()).prop_map(|(nth, found)| Step::Map { nth, found }),
        8 => (nth(), any::<bool>()).prop_map(|(nth, works)| Step::Spawn { nth, works }),
        8 => (nth(), any::<bool>()).prop_map(|(nth, fails)| Step::Report { nth, fails }),
        8 => (nth(), 0..2).prop_map(|(nth, code)| Step::Exit { nth, code }),
        2 => (0_u64..90).prop_map(Step::Later),
        1 => Just(Step::Stop),
    ]
}

/// What the shell would know.
#[derive(Default)]
struct Shell {
    mappings: Vec<u64>,
    launches: Vec<String>,
    processes: BTreeMap<i32, String>,
    acknowledged: Vec<u64>,
    finished: bool,
    retired: bool,
}

impl Shell {
    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            assert!(!self.finished, "nothing comes after the end: {action:?}");
            match action {
                Action::Map { number, .. } => self.mappings.push(number),
                Action::Launch { request } => {
                    assert!(!self.retired);
                    assert!(!self.launches.contains(&request.name));
                    assert!(!self.processes.values().any(|name| *name == request.name), "it runs already");
                    self.launches.push(request.name);
                }
                Action::Acknowledge(tag) => {
                    assert!(!self.acknowledged.contains(&tag.number), "acknowledged twice");
                    self.acknowledged.push(tag.number);
                }
                Action::Retire => self.retired = true,
                Action::Finish => self.finished = true,
                Action::Renew { .. } | Action::Notice { .. } | Action::Signal(_) | Action::Log(..) => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_order_of_events_breaks_the_rules(steps in prop::collection::vec(step(), 0..120)) {
        let mut scene = Scene::new(settings());
        let mut shell = Shell::default();
        let (mut commands, mut next_pid) = (0, 100);
        for (at, step) in steps.into_iter().enumerate() {
            let actions = match step {
                Step::Command { user_endpoint, person } => {
                    commands += u64::from(!shell.retired);
                    scene.command(user_endpoint, &format!("p{at}"), person)
                }
                Step::Map { nth, found } if nth < shell.mappings.len() => {
                    let number = shell.mappings.remove(nth);
                    let outcome = if found { to("harper") } else { MappingOutcome::Nobody };
                    scene.apply(Event::Mapped { number, outcome })
                }
                Step::Spawn { nth, works } if nth < shell.launches.len() => {
                    let name = shell.launches.remove(nth);
                    if works {
                        next_pid += 1;
                        shell.processes.insert(next_pid, name.clone());
                        scene.apply(Event::Spawned { name: &name, serial: serial(next_pid), pid: next_pid })
                    } else {
                        scene.apply(Event::NotSpawned { name: &name, problem: String::new() })
                    }
                }
                Step::Report { nth, fails } => match shell.processes.keys().nth(nth).copied() {
                    Some(pid) if fails => {
                        let failure = LaunchFailure { status: 71, notice: "t".into(), private: "p".into() };
                        scene.apply(Event::LaunchEnded { serial: serial(pid), end: LaunchEnd::Failed(failure) })
                    }
                    Some(pid) => scene.apply(started(pid)),
                    None => continue,
                },
                Step::Exit { nth, code } => match shell.processes.keys().nth(nth).copied() {
                    Some(pid) => {
                        shell.processes.remove(&pid);
                        scene.apply(Event::Exited { serial: serial(pid), status: ExitStatus::Code(code) })
                    }
                    None => continue,
                },
                Step::Later(seconds) => {
                    scene.seconds += seconds;
                    scene.apply(Event::Tick)
                }
                Step::Stop if !shell.finished => scene.apply(Event::Stop),
                _ => continue,
            };
            shell.perform(actions);
            prop_assert!(scene.core.children().starting() <= 2);
            prop_assert!(scene.core.children().len() <= 10);
            prop_assert_eq!(scene.core.children().len(), shell.processes.len() + shell.launches.len());
            if shell.finished {
                break;
            }
        }
        if shell.retired {
            return Ok(());
        }
        // Let everything that is under way end: then every command was answered.
        for _ in 0..2_000 {
            if let Some(number) = shell.mappings.pop() {
                let actions = scene.apply(Event::Mapped { number, outcome: to("harper") });
                shell.perform(actions);
            } else if let Some(name) = shell.launches.pop() {
                let actions = scene.apply(Event::NotSpawned { name: &name, problem: String::new() });
                shell.perform(actions);
            } else if let Some((pid, _)) = shell.processes.pop_first() {
                let actions = scene.apply(Event::Exited { serial: serial(pid), status: ExitStatus::Code(1) });
                shell.perform(actions);
            } else {
                // No launcher is started for a second after one could not be.
                scene.seconds += 1;
                let actions = scene.apply(Event::Tick);
                if actions.is_empty() {
                    break;
                }
                shell.perform(actions);
            }
        }
        prop_assert_eq!(shell.acknowledged.len() as u64, commands);
        prop_assert!(scene.core.children().is_empty());
        prop_assert!(scene.core.is_settled());
    }
}
