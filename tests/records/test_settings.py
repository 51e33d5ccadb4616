"""What a server is told: settings that cannot be kept are refused before anything starts."""

import pytest

from harness.errors import UsageError
from harness.records.server import ServerSettings


@pytest.mark.parametrize("token", ["", "two\nlines", " a space before", "größe"])
def test_a_token_that_no_client_could_send_is_refused(monkeypatch, token):
    monkeypatch.setenv("MODEL_TOKEN", token)
    with pytest.raises(UsageError, match="MODEL_TOKEN"):
        ServerSettings(token_env="MODEL_TOKEN").token()
