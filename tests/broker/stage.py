"""Where a scenario plays: one broker, its connections, and the transcript of what the broker said.

A transcript has one stream per connection and channel: what happens on different channels has no order that a broker
promises. Names carry the scenario's own prefix, so that scenarios share a broker, and lose it in the transcript.
"""

from peer import Peer

# Durable queues that both brokers have from the start; at ours they have a sink and a backing, as the service's have.
KEPT = ["kept-1", "kept-2"]
SCENARIOS = {}


def scenario(play):
    """Registers a scenario: a function of a stage, named by what it shows."""
    assert play.__name__ not in SCENARIOS, play.__name__
    SCENARIOS[play.__name__] = play
    return play


def observe(play, port):
    """Plays a scenario against a broker and returns its transcript."""
    stage = Stage(port, play.__name__)
    try:
        play(stage)
    except AssertionError as complaint:
        stage.note(f"gave up: {complaint}")
    finally:
        stage.close()
    return stage.transcript()


class Stage:
    def __init__(self, port, prefix):
        self.port = port
        self._prefix = prefix
        self._peers = []
        self._streams = {}

    def name(self, short):
        """The full name of a queue or an exchange of this scenario."""
        return f"{self._prefix}.{short}"

    def peer(self):
        """A bare TCP connection."""
        number = len(self._peers) + 1

        def record(channel, line):
            self._streams.setdefault((number, channel), []).append(line)

        peer = Peer(self.port, record)
        self._peers.append(peer)
        return peer

    def connect(self, *channels, **options):
        """An open connection with open channels, channel 1 unless told; recorded from here on."""
        peer = self.peer()
        peer.silent = True
        peer.open(**options).channel(*(channels or (1,)))
        peer.silent = False
        return peer

    def note(self, line):
        """Records what the scenario itself found."""
        self._streams.setdefault((0, 0), []).append(str(line))

    def close(self):
        for peer in self._peers:
            if not peer.ended:
                peer.drop()

    def transcript(self):
        """Plain lines, streams in order of connection and channel."""
        return [
            f"{connection}/{channel} {line}".replace(f"{self._prefix}.", "")
            for (connection, channel), lines in sorted(self._streams.items())
            for line in lines
        ]
