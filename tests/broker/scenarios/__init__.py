"""The scenarios, one file per subject. Importing this package fills `stage.SCENARIOS`."""

from . import confirming, content, declaring, delivering, handshake, limits, permissions, routing, settling, violations  # noqa: F401
