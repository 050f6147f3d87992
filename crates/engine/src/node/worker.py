"""The worker of a Farcall node: takes tasks from a socket, runs them, answers."""
