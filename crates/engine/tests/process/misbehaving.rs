//! Functions that misbehave. Each ends at most its own task, and the slot works again afterwards.

use std::time::Duration;

use serde_json::json;

use crate::cases::cases;
use crate::rig::{Outcome, Rig, alive};

cases! {
    processes_that_a_worker_started_end_with_it,
    misbehaving_functions_harm_no_other_task,
    every_exception_is_reported_and_the_worker_goes_on,
    a_worker_damaged_by_a_function_is_replaced,
    a_damaged_process_of_threads_is_replaced,
    a_forgotten_alarm_interrupts_no_other_function,
    a_function_that_closes_the_workers_descriptors_gets_an_error,
    a_forked_child_that_returns_is_ended_and_its_parent_answers,
    a_child_forked_in_a_thread_does_not_answer,
    a_process_pool_and_a_daemon_of_a_function_work_without_the_workers_sockets,
    a_worker_that_sends_an_unexpected_result_is_killed,
    a_stack_overflow_ends_only_its_task,
    a_gigabyte_printed_leaves_a_bounded_file,
    a_huge_result_is_refused_and_its_memory_freed,
    directory_and_environment_are_restored_for_each_task,
    the_empty_sandbox_of_a_task_whose_worker_died_is_removed,
}

async fn processes_that_a_worker_started_end_with_it() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    let source = "\
def f(path):
    import os, subprocess, time
    for n in range(200):
        kind = n % 4
        if kind == 0:
            subprocess.Popen(['sleep', '1000'], start_new_session=True)
        elif kind == 1:
            subprocess.Popen('sleep 1000 & sleep 1000 &', shell=True)
        elif kind == 2:
            # Neither a variable nor a session tells whose this is.
            subprocess.Popen('env -i setsid sleep 1000 &', shell=True)
        elif os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            time.sleep(1000)
    os._exit(9)
";
    let mark = rig.path().join("mark");
    let lost = rig.call(source, json!([mark]));
    let next = rig.call(
        "\
def f():
    import os
    def parent(pid):
        with open('/proc/%s/stat' % pid) as stat:
            state, parent = stat.read().rsplit(')', 1)[1].split()[:2]
        return '1' if state == 'Z' else parent
    node, found = str(os.getppid()), 0
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            above = parent(pid)
            while above not in ('0', '1', node):
                above = parent(above)
            found += above == node
        except OSError:
            pass
    return found
",
        json!([]),
    );
    rig.end_of(lost).await;
    assert_eq!(rig.end_of(next).await.value(), 1, "of the node's descendants only the fresh worker itself");
}

async fn misbehaving_functions_harm_no_other_task() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    for (source, words) in [
        ("return f()", "maximum recursion depth exceeded"),
        ("return (i for i in ())", "TypeError: The function returned a generator"),
        (
            "import sys\n    sys.stdout.close()\n    sys.stderr = None\n    raise ValueError('quiet')",
            "ValueError: quiet",
        ),
        ("import os\n    os.environ.clear()\n    os.chdir('/')\n    return 1", ""),
        (
            "import threading, time\n    threading.Thread(target=time.sleep, args=(1000,)).start()\n    return 1",
            "",
        ),
        ("import sys\n    sys.exit('with a thread left')", "WorkerLost"),
        ("import signal\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    return 1", ""),
        ("import builtins\n    builtins.len = None\n    return 1", ""),
    ] {
        let outcome = rig.run(&format!("def f():\n    {source}\n"), json!([])).await;
        match outcome {
            Outcome::Raised { text, .. } => {
                assert!(!words.is_empty() && text.contains(words), "{source}: {text}")
            }
            other => assert!(words.is_empty(), "{source}: {other:?}"),
        }
    }
    // A new worker does not have the damage of the last one.
    rig.run("def f():\n    import os\n    os._exit(0)\n", json!([])).await;
    assert_eq!(rig.run("def f():\n    return len('fine')\n", json!([])).await.value(), 4);
}

/// Forks by Python, and by C, of which Python does not know.
const FORKS: [(&str, &str); 2] =
    [("Python", "__import__('os').fork()"), ("C", "__import__('ctypes').CDLL(None).fork()")];

/// A function that forks, and whose child leaves it in several ways while the parent waits for it.
fn forking(fork: &str) -> String {
    format!(
        "\
def f(n, way):
    import os, sys, time
    child = {fork}
    if child == 0:
        if way == 'raises':
            raise ValueError('in the child')
        if way == 'exits':
            sys.exit(3)
        if way == 'is late':
            time.sleep(0.2)
        return 'from the child'
    if way == 'is late':
        return [n, None]
    return [n, os.waitpid(child, 0)[1]]
"
    )
}

async fn a_forked_child_that_returns_is_ended_and_its_parent_answers() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    for (whose, fork) in FORKS {
        for (way, status) in [
            ("returns", json!(0)),
            ("raises", json!(1 << 8)),
            ("exits", json!(3 << 8)),
            ("is late", json!(null)),
        ] {
            for n in 0..3 {
                let outcome = rig.run(&forking(fork), json!([n, way])).await;
                assert_eq!(outcome.value(), &json!([n, status]), "{whose}: a child that {way}");
            }
        }
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(
        rig.run("def f():\n    return 2\n", json!([])).await.value(),
        2,
        "late children do not answer"
    );
}

async fn a_child_forked_in_a_thread_does_not_answer() {
    let mut rig = Rig::start(json!({"type": "ThreadPoolEngine", "max_workers": 2})).await;
    for (whose, fork) in FORKS {
        for n in 0..4 {
            let outcome = rig.run(&forking(fork), json!([n, "returns"])).await;
            assert_eq!(outcome.value(), &json!([n, 0]), "{whose}");
        }
    }
}

async fn a_process_pool_and_a_daemon_of_a_function_work_without_the_workers_sockets() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    let pool = "\
def f(n):
    import multiprocessing
    with multiprocessing.get_context('fork').Pool(2) as pool:
        return pool.map(abs, range(-n, 0))
";
    assert_eq!(rig.run(pool, json!([4])).await.value(), &json!([4, 3, 2, 1]));
    let daemon = "\
def f(path):
    import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            names = ['/proc/self/fd/%s' % fd for fd in os.listdir('/proc/self/fd')]
            kinds = [os.readlink(name) for name in names if os.path.lexists(name)]
            with open(path + '~', 'w') as file:
                file.write(' '.join([str(os.getpid())] + [kind for kind in kinds if 'socket' in kind]))
            os.rename(path + '~', path)
            time.sleep(1000)
        os._exit(0)
    os.wait()
    return os.getpid()
";
    let path = rig.path().join("daemon");
    let worker = rig.run(daemon, json!([path])).await.value().clone();
    crate::rig::until(|| path.exists()).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let daemon: i64 = text.parse().expect("its process id and no socket of the worker's");
    let pid = "def f():\n    import os\n    return os.getpid()\n";
    assert_eq!(rig.run(pid, json!([])).await.value(), &worker, "the same worker goes on");
    assert!(alive(daemon), "the daemon outlives its task");
    rig.stop(Duration::ZERO).await;
    crate::rig::until(|| !alive(daemon)).await;
}

/// The function finds the socket for results, and writes forged ones: for another task, or two for its own.
async fn a_worker_that_sends_an_unexpected_result_is_killed() {
    let source = "\
def f(tasks):
    import json, os, socket, struct, time, uuid
    for fd in map(int, os.listdir('/proc/self/fd')):
        try:
            with socket.socket(fileno=os.dup(fd)) as end:
                kind = end.type
        except OSError:
            continue
        if kind == socket.SOCK_STREAM:
            for task in tasks:
                task = task or os.environ['GC_TASK_UUID']
                result = {'task_id': task, 'data': '11\\n[\"forged\"]', 'details': None, 'error_details': None}
                result['task_statuses'] = []
                message = json.dumps({'message_type': 'result', 'data': result}).encode()
                body = uuid.UUID(task).bytes + b'\\x01' + message
                os.write(fd, struct.pack('>IB', len(body) + 1, 2) + body)
    time.sleep(1000)
";
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    let strange = "11111111-0000-0000-0000-000000000000";
    let outcome = rig.run(source, json!([[strange]])).await;
    assert!(outcome.text().contains("WorkerLost"), "{outcome:?}");
    assert!(outcome.text().contains("result for a task that it was not running"), "{outcome:?}");
    assert_eq!(rig.run("def f(): return 2\n", json!([])).await.value(), 2, "the slot works again");
    assert_eq!(
        rig.run(source, json!([[null, null]])).await.value(),
        &json!(["forged"]),
        "it can forge its own result"
    );
    assert_eq!(rig.run("def f(): return 3\n", json!([])).await.value(), 3, "but only one");
}

async fn a_stack_overflow_ends_only_its_task() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    // Without the interpreter's recursion limit the stack overflows.
    let source = "\
def f():
    import sys
    sys.setrecursionlimit(10 ** 9)
    class Deep:
        def __repr__(self):
            return repr(self)
        def __hash__(self):
            return hash((self,))
    return hash(Deep())
";
    let outcome = rig.run(source, json!([])).await;
    assert!(outcome.text().contains("parsl.executors.high_throughput.errors.WorkerLost: "), "{outcome:?}");
    assert!(outcome.text().contains("SIGSEGV"), "{outcome:?}");
    assert_eq!(rig.run("def f(): return 2\n", json!([])).await.value(), 2);
}

async fn a_gigabyte_printed_leaves_a_bounded_file() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    let source = "\
def f(megabytes):
    import os
    block = b'x' * (1 << 20)
    for _ in range(megabytes):
        view = memoryview(block)
        while view:
            view = view[os.write(2, view):]
    return 'printed'
";
    assert_eq!(rig.run(source, json!([1024])).await.value(), "printed");
    let kept: u64 =
        crate::cases::walk(rig.path()).iter().map(|file| std::fs::metadata(file).unwrap().len()).sum();
    assert!(kept <= 17 << 20, "{kept}");
}

async fn a_huge_result_is_refused_and_its_memory_freed() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    let pid = rig.run("def f():\n    import os\n    return os.getpid()\n", json!([])).await;
    let outcome = rig.run("def f(n):\n    return 'x' * n\n", json!([100_000_000])).await;
    let Outcome::Raised { code, text } = outcome else { panic!("too large") };
    assert_eq!(code, "MaxResultSizeExceeded");
    assert!(text.starts_with("MaxResultSizeExceeded(100000005, 10485760)\n"), "{text}");
    assert!(alive(pid.value().as_i64().unwrap()), "the worker stays");
    let resident = "\
def f():
    with open('/proc/self/statm') as statm:
        return int(statm.read().split()[1]) >> 8
";
    let resident = rig.run(resident, json!([])).await;
    assert!(resident.value().as_u64().unwrap() < 100, "MB kept: {resident:?}");
}

async fn directory_and_environment_are_restored_for_each_task() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1, "run_in_sandbox": true})).await;
    let spoil = "\
def f():
    import os, shutil
    here = os.getcwd()
    os.chdir('/')
    shutil.rmtree(here)
    os.environ.clear()
    return here
";
    let look = "\
def f():
    import os
    return [os.getcwd(), os.environ['GC_TASK_SANDBOX_DIR'], os.environ['GC_TASK_UUID']]
";
    let before = rig.run(spoil, json!([])).await;
    let id = rig.call(look, json!([]));
    let after = rig.end_of(id).await;
    assert_eq!(after.value()[0], after.value()[1]);
    assert_eq!(after.value()[2], json!(id));
    assert!(after.value()[0].as_str().unwrap().ends_with(&id.to_string()));
    assert_ne!(before.value(), &after.value()[0]);
}

async fn the_empty_sandbox_of_a_task_whose_worker_died_is_removed() {
    let options = json!({
        "max_workers_per_node": 1,
        "run_in_sandbox": true,
        "max_retries_on_system_failure": 1,
    });
    let mut rig = Rig::start(options).await;
    let work = rig.path().join("tasks_working_dir");
    let dies = "def f():\n    import os\n    os._exit(1)\n";
    assert!(rig.run(dies, json!([])).await.text().contains("WorkerLost"));
    assert_eq!(std::fs::read_dir(&work).unwrap().count(), 0);
    let leaves = "def f():\n    import os\n    open('data', 'a').write('x')\n    os._exit(1)\n";
    let id = rig.call(leaves, json!([]));
    rig.end_of(id).await;
    let kept = std::fs::read(work.join(id.to_string()).join("data")).unwrap();
    assert_eq!(kept, b"xx", "what it left there is its user's, by both attempts");
}

async fn every_exception_is_reported_and_the_worker_goes_on() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    let pid = "def f():\n    import os\n    return os.getpid()\n";
    let worker = rig.run(pid, json!([])).await.value().clone();
    for (body, words) in [
        ("raise KeyboardInterrupt", "\nKeyboardInterrupt\n"),
        ("import asyncio; raise asyncio.CancelledError('in time')", "CancelledError: in time\n"),
        (
            "raise type('Panic', (BaseException,), {'__module__': 'm'})('of an extension')",
            "Panic: of an extension\n",
        ),
        ("raise GeneratorExit", "\nGeneratorExit\n"),
        (
            "raise type('E', (Exception,), {'__module__': 'm', '__str__': lambda self: 1 / 0})",
            "m.E: <exception str() failed>\n",
        ),
        (
            "a = ValueError('a'); a.__cause__ = KeyError('b'); a.__cause__.__cause__ = a; raise a",
            "ValueError: a\n",
        ),
        ("raise ValueError('x' * 100_000_000)", "characters of this error are left out]"),
        ("import sys; sys.setrecursionlimit(60); f()", "RecursionError"),
    ] {
        let outcome = rig.run(&format!("def f():\n    {body}\n"), json!([])).await;
        assert!(
            outcome.text().contains(words),
            "{body}: {}",
            &outcome.text()[..outcome.text().len().min(1000)]
        );
        assert!(outcome.text().len() < 11 << 20, "{body}");
        if !body.contains("recursion") {
            assert_eq!(rig.run(pid, json!([])).await.value(), &worker, "{body}");
        }
    }
    for reduce in ["raise ValueError('no')", "return type(self), (type(self)(),)", "raise KeyboardInterrupt"]
    {
        let source = format!(
            "def f():\n    class R:\n        def __reduce__(self):\n            {reduce}\n    return R()\n"
        );
        let id = rig.submit(&source, json!([]), |_| ());
        let Outcome::Raised { code, text } = rig.end_of(id).await else { panic!("{reduce}") };
        assert_eq!(code, "RemoteExecutionError");
        assert!(!text.contains("WorkerLost"), "{reduce}: {text}");
        assert_eq!(rig.run("def f(): return 2\n", json!([])).await.value(), 2, "{reduce}");
    }
}

/// A damaged worker fails at most one more task, whose error says to submit it again.
async fn a_worker_damaged_by_a_function_is_replaced() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    for spoil in [
        "import json; json.dumps = json.loads = None",
        "import sys; sys.modules['traceback'] = sys.modules['json'] = sys.modules['pickle'] = None",
        "import os\n    for name in ('read', 'write', 'writev', 'chdir', 'environ', '_exit', 'getpid'): setattr(os, name, None)",
        "import os; os.environ = type('D', (dict,), {'__setitem__': lambda self, *pair: 1 / 0})()",
        "import sys; sys.setrecursionlimit(40)",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))",
        "import sys; sys.stdout.close()",
        "import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start(); __builtins__['len'] = None",
        "import atexit, builtins, time; atexit.register(time.sleep, 1000); builtins.len = None",
    ] {
        let spoiling = rig.run(&format!("def f():\n    {spoil}\n    return 1\n"), json!([])).await;
        let victim = rig.run("def f(): raise ValueError('mine')\n", json!([])).await;
        let damage = "This worker process was damaged";
        if spoiling == Outcome::Returned(json!(1)) && !spoil.contains("close") {
            assert!(victim.text().contains(damage), "{spoil}: {victim:?}");
        } else {
            assert!(victim.text().ends_with("ValueError: mine\n"), "{spoil}: {victim:?}");
        }
        let next = "def f():\n    import json, os, sys, traceback\n    print('works')\n    return len(json.dumps(os.getcwd())) > 3\n";
        assert_eq!(rig.run(next, json!([])).await.value(), true, "{spoil}");
    }
}

async fn a_damaged_process_of_threads_is_replaced() {
    let mut rig = Rig::start(json!({"type": "ThreadPoolEngine", "max_workers": 1})).await;
    let spoil = "def f():\n    import builtins, sys\n    sys.modules['traceback'] = builtins.len = None\n    return 1\n";
    assert_eq!(rig.run(spoil, json!([])).await.value(), 1);
    let victim = rig.run("def f(): raise ValueError('mine')\n", json!([])).await;
    assert!(victim.text().contains("This worker process was damaged"), "{victim:?}");
    assert_eq!(rig.run("def f(): return len('fine')\n", json!([])).await.value(), 4);
}

async fn a_forgotten_alarm_interrupts_no_other_function() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    let forget = "def f():\n    import signal\n    signal.setitimer(signal.ITIMER_REAL, 0.2)\n    return 1\n";
    assert_eq!(rig.run(forget, json!([])).await.value(), 1);
    let sleep = "def f():\n    import time\n    time.sleep(0.4)\n    return 2\n";
    assert_eq!(rig.run(sleep, json!([])).await.value(), 2);
}

async fn a_function_that_closes_the_workers_descriptors_gets_an_error() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    for then in ["pass", "time.sleep(1000)", "builtins.kept = [open('/dev/null', 'r+') for _ in range(40)]"] {
        let source = format!(
            "def f():\n    import builtins, os, time\n    os.closerange(3, 256)\n    {then}\n    return 1\n"
        );
        let outcome = rig.run(&source, json!([])).await;
        assert!(
            outcome.text().contains("must leave file descriptors alone that it has not opened"),
            "{then}: {outcome:?}"
        );
        assert_eq!(rig.run("def f(): return 2\n", json!([])).await.value(), 2, "{then}");
    }
}
