"""Attacks by people without an account."""

import pytest

from rest import Refused, Rest
from table import attack


@attack("somebody without an account", "asks who an identity is")
def asks_who_somebody_is(testbed):
    service = testbed.service()
    stranger = Rest(service.origin(), None, None, token="forged")
    with pytest.raises(Refused) as refused:
        stranger.get(f"/v2/api/identities?ids={service.identity[0]}")
    assert refused.value.status == 401
