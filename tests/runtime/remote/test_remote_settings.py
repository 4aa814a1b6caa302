"""Addresses of servers: what is one, and what is refused before anything is sent."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.runtime.errors import UsageError
from edgewright.runtime.remote.settings import RemoteSettings


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEWRIGHT_TOKEN", raising=False)


@pytest.mark.parametrize(
    ("url", "address", "path"),
    [
        ("http://host", ("host", 80), "/v2/models/m"),
        ("https://host", ("host", 443), "/v2/models/m"),
        ("http://127.0.0.1:8000/", ("127.0.0.1", 8000), "/v2/models/m"),
        ("http://[::1]:8000/v2", ("::1", 8000), "/v2/models/m"),
        ("http://host/v2/models/x", ("host", 80), "/v2/models/x"),
        ("http://host/v2/models/a%20b/versions/3/", ("host", 80), "/v2/models/a%20b/versions/3"),
    ],
)
def test_address_is_understood(url: str, address: tuple[str, int], path: str) -> None:
    settings = RemoteSettings(url)
    assert (settings.address, settings.path("m")) == (address, path)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "host:8000",
            "ftp://host",
            "file:///etc/passwd",
            "http://",
            "http://:80",
            "http://host:0",
            "http://host:x",
        ),
        *("http://[::1", "http://host:99999", "http://ho st", "http://host\r\nX: y", "http://höst"),
        *(
            "http://host/other",
            "http://host/v2/models/",
            "http://host/v2/models/a/b",
            "http://host?x=1",
            "http://host#x",
        ),
    ],
)
def test_what_is_no_server_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no server"):
        RemoteSettings(url)


def test_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match="holds a password") as caught:
        RemoteSettings("http://user:hunter2@host")
    assert "hunter2" not in str(caught.value)


def test_address_and_settings_may_not_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="The URL says model 'a', the settings say 'b'"):
        RemoteSettings("http://host/v2/models/a", model="b")
    assert RemoteSettings("http://host/v2/models/a", model="a").path("m") == "/v2/models/a"


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, 3601])
def test_absurd_timeout_is_refused(seconds: float) -> None:
    with pytest.raises(UsageError, match="timeout_s is"):
        RemoteSettings("http://host", timeout_s=seconds)
    with pytest.raises(UsageError, match="connect_timeout_s is"):
        RemoteSettings("http://host", connect_timeout_s=seconds)


@pytest.mark.parametrize("token", ["", " ", "a b", "a\r\nX: y", "ü", "="])
def test_token_that_is_none_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(UsageError, match=r"^The token has characters that a bearer token cannot have\.$"):
        RemoteSettings("http://host", token=token)


def test_token_is_not_shown_with_the_settings() -> None:
    assert "s3cret" not in repr(RemoteSettings("http://host", token="s3cret"))


@pytest.mark.parametrize(
    ("url", "exposes"),
    [("http://host", True), ("https://host", False), ("http://127.0.0.1", False), ("http://[::1]", False)],
)
def test_token_in_the_clear_is_noticed(url: str, exposes: bool) -> None:
    assert RemoteSettings(url, token="t").exposes_token == exposes
    assert not RemoteSettings(url).exposes_token


@given(st.text(), st.text())
def test_any_text_is_an_address_or_refused(host: str, rest: str) -> None:
    try:
        settings = RemoteSettings(f"http://{host}{rest}")
    except UsageError:
        return
    assert settings.address[0]
    assert settings.path("m").startswith("/v2/models/")
    assert settings.path("m").isascii()
