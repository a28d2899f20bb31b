#!/usr/bin/env python3
"""A backend to copy, which counts the words of a text. Run it as often as you like:

    XMPP_PASSWORD=... python3 backend.py some-user@some-domain.example

The server gives each copy a resource of its own, unless the address has one.
"""
import asyncio
import os
import signal
import sys

from slixmpp import ClientXMPP, Iq
from slixmpp.xmlstream import ElementBase, register_stanza_plugin
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath


class Query(ElementBase):  # <query xmlns='urn:example:service'><text>three words here</text></query>
    name, namespace, plugin_attrib = "query", "urn:example:service", "service"
    interfaces = sub_interfaces = {"text", "words", "backend"}


class Backend(ClientXMPP):
    def __init__(self, jid, password):
        super().__init__(jid, password)
        register_stanza_plugin(Iq, Query)
        self.register_handler(Callback("query", StanzaPath("iq@type=get/service"), self.on_query))
        # from its first presence on, it gets requests
        self.add_event_handler("session_start", lambda event: self.send_presence())

    def on_query(self, iq):
        reply = iq.reply()  # to iq["from"], a pseudonym of the requester
        reply["service"]["words"] = str(len(iq["service"]["text"].split()))
        reply["service"]["backend"] = self.boundjid.resource
        reply.send()


async def main():
    backend = Backend(sys.argv[1], os.environ["XMPP_PASSWORD"])
    for number in (signal.SIGINT, signal.SIGTERM):
        backend.loop.add_signal_handler(number, backend.disconnect)
    backend.connect()
    await backend.disconnected


asyncio.run(main())
