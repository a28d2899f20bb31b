#!/usr/bin/env python3
"""A backend to copy: a service that counts the words of a text.

    python3 backend.py some-user@some-domain.example

It logs in as the target, with the password from $XMPP_PASSWORD or typed in. Run it
as often as you like: the server gives each copy a resource of its own, unless the
address has one. Ctrl-C or SIGTERM stops it.
"""

import asyncio
import getpass
import logging
import os
import signal
import sys

from slixmpp import ClientXMPP, Iq
from slixmpp.xmlstream import ElementBase, register_stanza_plugin
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath


class Query(ElementBase):
    """<query xmlns='urn:example:service'><text>three words here</text></query>"""
    name = "query"
    namespace = "urn:example:service"
    plugin_attrib = "service"
    interfaces = sub_interfaces = {"text", "words", "backend"}


class Backend(ClientXMPP):
    stopping = False

    def __init__(self, jid, password):
        super().__init__(jid, password)
        register_stanza_plugin(Iq, Query)
        self.register_handler(Callback("query", StanzaPath("iq@type=get/service"), self.on_query))
        self.add_event_handler("session_start", self.on_session_start)

    def on_session_start(self, event):
        self.send_presence()  # from now on, there are requests

    def on_query(self, iq):
        reply = iq.reply()  # to iq["from"], a pseudonym of the requester
        reply["service"]["words"] = str(len(iq["service"]["text"].split()))
        reply["service"]["backend"] = self.boundjid.resource
        reply.send()

    def stop(self):
        self.stopping = True
        self.disconnect()


async def main(jid, password):
    backend = Backend(jid, password)
    for number in (signal.SIGINT, signal.SIGTERM):
        backend.loop.add_signal_handler(number, backend.stop)
    backend.connect()
    await backend.disconnected
    if not backend.stopping:
        sys.exit("The connection has ended.")  # an error, so that a supervisor starts it again


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python3 backend.py some-user@some-domain.example")
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(sys.argv[1], os.environ.get("XMPP_PASSWORD") or getpass.getpass()))
