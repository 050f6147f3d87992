"""Runs a scenario against one broker: its connections, and the transcript of what the broker sent.

A transcript has one stream per connection and channel, because brokers promise no order between channels. Names of queues
and exchanges have the scenario's name as a prefix, so that scenarios can share a broker. The transcript leaves it out.
"""

from peer import Peer

# Durable queues that both brokers have from the start. At ours they have a sink and a backing, like the service's.
KEPT = ["kept-1", "kept-2"]
SCENARIOS = {}


def scenario(play):
    """Registers a scenario: a function of a stage. Its name says what it shows."""
    assert play.__name__ not in SCENARIOS, play.__name__
    SCENARIOS[play.__name__] = play
    return play


def observe(play, port):
    """Runs a scenario against a broker and returns the transcript."""
    stage = Stage(port, play.__name__)
    try:
        play(stage)
    except AssertionError as failure:
        stage.note(f"gave up: {failure}")
    finally:
        stage.close()
    return stage.transcript()


class Stage:
    """One run of a scenario."""

    def __init__(self, port, prefix):
        self.port = port
        self._prefix = prefix
        self._peers = []
        self._streams = {}

    def name(self, short):
        """The full name of a queue or an exchange of this scenario."""
        return f"{self._prefix}.{short}"

    def peer(self):
        """A TCP connection without a handshake."""
        number = len(self._peers) + 1

        def record(channel, line):
            self._streams.setdefault((number, channel), []).append(line)

        peer = Peer(self.port, record)
        self._peers.append(peer)
        return peer

    def connect(self, *channels, **options):
        """An open connection with open channels (channel 1 by default). Recording begins after their opening."""
        peer = self.peer()
        peer.silent = True
        peer.open(**options).channel(*(channels or (1,)))
        peer.silent = False
        return peer

    def note(self, line):
        """Records a line of the scenario itself."""
        self._streams.setdefault((0, 0), []).append(str(line))

    def close(self):
        for peer in self._peers:
            if not peer.ended:
                peer.drop()

    def transcript(self):
        """The lines of all streams, in the order of connections and channels."""
        return [
            f"{connection}/{channel} {line}".replace(f"{self._prefix}.", "")
            for (connection, channel), lines in sorted(self._streams.items())
            for line in lines
        ]
