"""For spec/e2e/example_spec.lua: what slixmpp asks for addresses, in the place of the
module of that name. XMPP is served at $XMPP_PORT on loopback, whatever the domain."""

import os
import socket
from types import SimpleNamespace


class DNSResolver:
    def __init__(self, **options):
        pass

    async def query(self, name, kind):
        if kind != "SRV" or not name.startswith("_xmpp-client._tcp."):
            raise OSError("no such record")
        return [SimpleNamespace(priority=0, weight=0, host="localhost", port=int(os.environ["XMPP_PORT"]))]

    async def gethostbyname(self, host, family):
        if family != socket.AF_INET:
            raise OSError("no such record")
        return SimpleNamespace(addresses=["127.0.0.1"])
