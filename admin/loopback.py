"""Which addresses only this machine can reach: what decides whether Quiver may run without client keys."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost`, in 127.0.0.0/8, or `::1`. Other names are taken as public, whatever they resolve to."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
