"""Groups whose sessions belong to versions of the model that look different from outside."""

from __future__ import annotations

from typing import Any

import pytest
from cellkeeper import AsyncClient, GroupError, ModelChanged

from .counting_server import CountingServer
from .counting_sessions import FINGERPRINT, OTHER_FINGERPRINT


async def test_versions_that_do_not_fit_together(server: CountingServer, client: AsyncClient) -> None:
    server.of_other_version = {"b"}
    with pytest.raises(GroupError, match="missing_values: the session belongs to version 000000000000") as caught:
        await client.group(["a", "b", "c"])
    assert isinstance(caught.value.errors["b"], ModelChanged)
    assert caught.value.group.ids == ("a", "c")
    alone = await client.group(["b"])
    assert alone.model.fingerprint == OTHER_FINGERPRINT
    assert alone.model.missing_values
    server.of_other_version = set()
    with pytest.raises(GroupError, match="reset: 1 of 1"):
        await alone.reset()  # it is at step 0 of another version
    server.of_other_version = {"b"}
    assert (await alone.reset())["b"].step == 0


async def test_versions_whose_features_have_another_order(
    server: CountingServer, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One array, or one DataFrame, cannot have its columns in the order of both."""
    made = server._model

    def with_names(fingerprint: bytes = FINGERPRINT) -> Any:
        model = made()
        model.fingerprint = fingerprint
        model.feature_names.extend(("flow", "pressure") if fingerprint == FINGERPRINT else ("pressure", "flow"))
        return model

    monkeypatch.setattr(server, "_model", with_names)
    server.of_other_version = {"b"}
    says = r"feature_names: the session belongs to version .*, where it is \('pressure', 'flow'\)"
    with pytest.raises(GroupError, match=says) as caught:
        await client.group(["a", "b"])
    assert caught.value.group.ids == ("a",)
