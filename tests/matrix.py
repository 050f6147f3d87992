"""The table of SDK and endpoint releases that the end-to-end tests combine.

A test that takes `cell`, `sdk` or `endpoint` runs once for each cell that its file names. In `e2e/test_stock_sdk.py` the short
scenario runs in all cells, and the long one on the diagonal; other files use only cells with our endpoint. To add a broker
or a store, add a dimension here and start it in `Cell.endpoint_in`.
"""

import itertools
from collections import namedtuple

DIMENSIONS = {
    "sdk": ["4.19.0", "3.8.0"],
    "endpoint": ["ours", "4.19.0", "3.8.0"],
}
OURS = "ours"

# From 4.10 on upstream's endpoint is always a manager, which starts user endpoints by a template.
TEMPLATE = """
    engine:
      type: ThreadPoolEngine
      max_workers: 2
"""


class Cell(namedtuple("Cell", DIMENSIONS)):
    """One choice of each dimension."""

    def __str__(self):
        return "-".join(f"{dimension}_{choice}" for dimension, choice in zip(DIMENSIONS, self))

    def endpoint_in(self, testbed, service):
        """The cell's endpoint, started when the testbed has none like it. Workers have the Python of the endpoint's
        release; those of ours, that of the SDK's."""
        name = f"ours-{self.sdk}" if self.endpoint == OURS else f"upstream-{self.endpoint}"
        for endpoint in testbed.endpoints:
            if endpoint.name == name:
                return endpoint
        if self.endpoint == OURS:
            return testbed.endpoint(service, name, python=f"sdk-{self.sdk}")
        if self.endpoint == "3.8.0":
            return testbed.endpoint(service, name, python="sdk-3.8.0", upstream=True)
        return testbed.manager(service, TEMPLATE, name, release=self.endpoint)


def cells(**only):
    """The full cross; `only` limits a dimension to some of its choices."""
    choices = [only.get(dimension, known) for dimension, known in DIMENSIONS.items()]
    return [Cell(*chosen) for chosen in itertools.product(*choices)]


def diagonal():
    """Ours with every SDK, and of upstream's what was released together."""
    return [cell for cell in cells() if cell.endpoint in (OURS, cell.sdk)]
