"""Attacks of somebody who takes more than their share of what all use."""

import pytest

from rest import Refused
from table import attack, played_elsewhere

played_elsewhere(
    "somebody with an account",
    "fills the memory by listing endpoints that say much of themselves",
    "crates/service/tests/service/shares.rs::a_list_of_endpoints_reads_what_it_shows",
)
played_elsewhere(
    "somebody with an account",
    "makes the lists of others slow by endpoints that name them",
    "crates/service/src/store/tests.rs::lists_of_endpoints_scan_no_table",
)


@attack("somebody with an account", "registers endpoints without end")
def registers_endpoints_without_end(scene):
    service = scene.service(configuration="limits:\n  endpoints_per_identity: 20\n")
    attacker, other = service.rest(), service.rest(service.add_client("other"))
    endpoint = {"endpoint_name": "ep", "metadata": {"endpoint_config": "#" * 1000}}
    for _ in range(20):
        attacker.post("/v3/endpoints", endpoint)
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            attacker.post("/v3/endpoints", endpoint)
        assert refused.value.status == 409
        assert "limits.endpoints_per_identity" in refused.value.body
    assert len(attacker.get("/v2/endpoints")) == 20
    other.post("/v3/endpoints", endpoint)
