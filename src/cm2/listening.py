"""A place to listen at: an address and port of this machine, and who reaches it."""

from __future__ import annotations

import ipaddress
import socket

from cm2.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bound(host: str, port: int) -> socket.socket:
    """A socket bound to the address (port 0: any that is free), so that a taken port is told before anything else.

    Raises:
        ConfigError: the address cannot be had.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        message = f"cannot listen on {host} port {port}: {error.strerror or error}"
        raise ConfigError(message, fix="choose another --port (0: any that is free) or --host") from error
    return listener
