"""A shell command as a function: its arguments are filled in, its output and its exit status come back."""

import os

from globus_compute_sdk import Executor, ShellFunction

count = ShellFunction("printf '{text}' | tr ' ' '\\n' | sort | uniq -c")

with Executor(endpoint_id=os.environ["FARCALL_ENDPOINT_ID"]) as executor:
    result = executor.submit(count, text="to be or not to be").result()
    print(result.cmd)
    print(result.stdout, end="")
    print("exit status", result.returncode)
