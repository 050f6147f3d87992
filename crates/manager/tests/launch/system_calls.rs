//! Has the kernel refuse a system call.

/// A system call that the kernel answers with EPERM.
pub(crate) struct Denied {
    pub(crate) call: libc::c_long,
    /// Only with this as its second argument.
    pub(crate) second_argument: Option<u32>,
}

impl Denied {
    pub(crate) fn call(call: libc::c_long) -> Self {
        Self { call, second_argument: None }
    }

    pub(crate) fn text(&self) -> String {
        format!("{},{}", self.call, self.second_argument.map(|it| it.to_string()).unwrap_or_default())
    }

    pub(crate) fn parse(text: &str) -> Self {
        let (call, argument) = text.split_once(',').unwrap();
        Self { call: call.parse().unwrap(), second_argument: argument.parse().ok() }
    }

    /// From now on, for this process and its children.
    pub(crate) fn install(&self) {
        const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        const UNLESS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        // The second argument's lower half, in `struct seccomp_data`.
        const SECOND_ARGUMENT: u32 = 24;
        let step = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
        let call = u32::try_from(self.call).unwrap();
        let mut steps = match self.second_argument {
            None => vec![step(LOAD, 0, 0), step(UNLESS, call, 1)],
            Some(argument) => vec![
                step(LOAD, 0, 0),
                step(UNLESS, call, 3),
                step(LOAD, SECOND_ARGUMENT, 0),
                step(UNLESS, argument, 1),
            ],
        };
        steps.push(step(ANSWER, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0));
        steps.push(step(ANSWER, libc::SECCOMP_RET_ALLOW, 0));
        let program =
            libc::sock_fprog { len: u16::try_from(steps.len()).unwrap(), filter: steps.as_mut_ptr() };
        // SAFETY: the program lives through the call, which copies it.
        let installed =
            unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        assert_eq!(installed, 0, "root may filter system calls");
    }
}
