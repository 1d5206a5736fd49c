"""The server under test: where it is, how it is reached, and what else is known of it."""

import re
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from .check import Failed


@dataclass
class Target:
    host: str
    port: int
    tls: bool = False
    # Who answers `/`, `/download/N` with N bytes, and POSTs.
    authority: str = "localhost"
    # Who takes WebSockets at /chat and sends each message back; none: those checks are skipped.
    websocket_authority: str | None = None
    # Whose server accepts connections and never reads; none: those checks are skipped.
    deaf_authority: str | None = None
    # The server's process, if it runs here: its memory is watched.
    pid: int | None = None
    # For how many seconds a server may do nothing at all before a check gives up.
    patience_s: float = 10
    # What the running check has seen come with PROTOCOL_ERROR instead of a more specific code.
    inexact: list = field(default_factory=list)

    @property
    def scheme(self):
        return "https" if self.tls else "http"

    def connect(self, authority, context=None):
        """A connection on which HTTP/2 is agreed upon: by ALPN, or by knowing it (RFC 9113 §3.2, §3.3).

        Over TLS it is for one authority, and others may be refused there (§9.1.2, 421).
        """
        plain = socket.create_connection((self.host, self.port), self.patience_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.tls:
            return plain
        context = context or tls_context()
        context.set_alpn_protocols(["h2"])
        secured = context.wrap_socket(plain, server_hostname=authority.split(":")[0])
        if secured.selected_alpn_protocol() != "h2":
            secured.close()
            raise Failed(f"ALPN chose {secured.selected_alpn_protocol()} where only h2 was offered")
        return secured

    def rss_kib(self):
        """The memory of the server's process; None if it is not known which that is."""
        if self.pid is None:
            return None
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])


def tls_context():
    """Takes any certificate: whose it is, is not what is checked here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
