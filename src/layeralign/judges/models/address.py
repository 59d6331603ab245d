"""Addresses of servers, and the keys for them."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from layeralign.errors import LayeralignError

_NEAR = (".localhost", ".local", ".localdomain", ".localdomain4", ".localdomain6")
"""Ends of names of this machine or its network, as in the hosts file of Fedora and RHEL."""


def is_near(host: str) -> bool:
    """Whether a host is this machine, a private address, or a name without a dot, as in a cluster."""
    host = re.sub("[\u3002\uff0e\uff61]", ".", host).rstrip(".")  # dots of other scripts, which IDNA reads
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        with suppress(OSError, ValueError):  # 127.1 and 0x7f.1 are addresses for the system
            return is_near(socket.inet_ntoa(socket.inet_aton(host)))
        return "." not in host or host.lower().endswith(_NEAR)
    return not found.is_global


def address(url: str, key: str) -> str:
    """Check a base URL and remove trailing slashes.

    Args:
        url: The base URL.
        key: Environment variable of the server's key, for the message.

    Raises:
        LayeralignError: `url` is not an http or https address, or contains a key.
    """
    try:
        parts, port = urlsplit(url), urlsplit(url).port
    except ValueError:  # half an IPv6 address, or a port that is none
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise LayeralignError("endpoint: expected an address such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise LayeralignError(f"endpoint: the address contains credentials; set {key} instead")
    return url.rstrip("/")


def key_in(name: str) -> str | None:
    """The key in an environment variable; None if it is unset.

    Raises:
        LayeralignError: The key has characters that a header cannot have; the message does not show it.
    """
    key = os.environ.get(name)
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise LayeralignError(
            f"{name}: has a blank, a line break or another character that is invalid in a key"
        )
    return key or None
