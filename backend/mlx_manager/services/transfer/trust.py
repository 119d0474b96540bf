"""Whose TLS certificates are believed: what SSL_CERT_FILE names, else what the system believes.

The libcurl of a wheel was built on another machine and does not know where this one keeps its certificates.
"""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

# Debian and its kin, Fedora and its kin, SUSE, Alpine and macOS.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def ca_bundle() -> str | None:
    """The PEM file to believe; None where none is found, and libcurl's own default must do."""
    named = ssl.get_default_verify_paths().cafile
    return named or next((bundle for bundle in _BUNDLES if Path(bundle).is_file()), None)


def asks_the_system() -> bool:
    """On macOS the Keychain is asked besides: companies put their own certificates there."""
    return sys.platform == "darwin"
