"""Which server, which model on it, and how long to wait."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from edgewright.runtime.errors import UsageError
from edgewright.runtime.network import TOKEN_VARIABLE, is_loopback

__all__ = ["RemoteSettings"]

_LONGEST_WAIT_S = 3600.0
_ENDPOINT = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?")


@dataclass(frozen=True)
class RemoteSettings:
    """A model on a server that speaks the Open Inference Protocol v2.

    Attributes:
        url: `http://host:8000`, or with the model: `https://host/v2/models/NAME[/versions/V]`.
        model: The model's name there, where the URL does not tell; None: the bundle's name.
        version: A version of it; None: the server's own choice, to which this client then keeps.
        token: Sent as `Authorization: Bearer …`. None: the variable EDGEWRIGHT_TOKEN, if it is set.
        timeout_s: For one answer, from its first try to its last byte, waiting for a busy server included.
        connect_timeout_s: For a connection.
        ca_file: Certificates (PEM) to trust for https in place of the system's.
    """

    url: str
    model: str | None = None
    version: str | None = None
    token: str | None = field(default=None, repr=False)
    timeout_s: float = 30.0
    connect_timeout_s: float = 5.0
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # brackets that do not match, a port that is none
            sound = False
        if not sound or not self.url.isascii() or not self.url.isprintable() or " " in self.url:
            raise UsageError(f"'{self.url}' is no server. Expected a URL such as http://127.0.0.1:8000.")
        if parts.username is not None or parts.password is not None:
            raise UsageError(f"The URL of {parts.hostname} holds a password. Give a token, in {TOKEN_VARIABLE}.")
        endpoint = _ENDPOINT.fullmatch(parts.path.rstrip("/"))
        if parts.query or parts.fragment or (endpoint is None and parts.path.rstrip("/") not in ("", "/v2")):
            raise UsageError(
                f"'{self.url}' is no server's URL. Expected http://host:port, or http://host:port/v2/models/NAME."
            )
        if endpoint is not None:
            for name, found in (("model", endpoint["model"]), ("version", endpoint["version"])):
                own = getattr(self, name)
                if found is not None and own not in (None, unquote(found)):
                    raise UsageError(f"The URL says {name} '{unquote(found)}', the settings say '{own}'.")
                if found is not None:
                    object.__setattr__(self, name, unquote(found))
        for name in ("timeout_s", "connect_timeout_s"):
            if not 0 < getattr(self, name) <= _LONGEST_WAIT_S:  # written so that NaN is refused
                raise UsageError(
                    f"{name} is {getattr(self, name)}. Expected more than 0, at most {_LONGEST_WAIT_S:.0f}."
                )
        if self.token is None and os.environ.get(TOKEN_VARIABLE):
            object.__setattr__(self, "token", os.environ[TOKEN_VARIABLE])
        if self.token is not None and not re.fullmatch(r"[A-Za-z0-9\-._~+/]+=*", self.token):
            # RFC 6750, section 2.1. The token itself is not shown.
            raise UsageError("The token has characters that a bearer token cannot have.")

    @property
    def secure(self) -> bool:
        """Whether what is sent is encrypted."""
        return urlsplit(self.url).scheme == "https"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return str(parts.hostname), parts.port or (443 if self.secure else 80)

    @property
    def exposes_token(self) -> bool:
        """Whether a token is sent over the network in the clear."""
        return self.token is not None and not self.secure and not is_loopback(self.address[0])

    @property
    def origin(self) -> str:
        """For messages: scheme, host and port."""
        return f"{urlsplit(self.url).scheme}://{urlsplit(self.url).netloc}"

    def path(self, model: str) -> str:
        """The model's path, without a slash at its end; `model` where none was told."""
        path = f"/v2/models/{quote(self.model or model, safe='')}"
        return path if self.version is None else f"{path}/versions/{quote(self.version, safe='')}"
