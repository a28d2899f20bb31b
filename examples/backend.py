#!/usr/bin/env python3
"""A backend to copy, together with client.py, which counts the words of a text. Run it as often as you like:

    XMPP_PASSWORD=... python3 backend.py some-user@some-domain.example

The server gives each copy a resource of its own, unless the address has one.
"""
import asyncio

from client import Client, Options  # first, as it says so if slixmpp is missing
from slixmpp import Iq
from slixmpp.xmlstream import ElementBase, register_stanza_plugin
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath


class Query(ElementBase):  # <query xmlns='urn:example:service'><text>three words here</text></query>
    name, namespace, plugin_attrib = "query", "urn:example:service", "service"
    interfaces = sub_interfaces = {"text", "words", "backend"}


class Backend(Client):
    def __init__(self, *settings):
        super().__init__(*settings)
        register_stanza_plugin(Iq, Query)
        self.register_handler(Callback("query", StanzaPath("iq@type=get/service"), self.on_query))

    def on_query(self, iq):
        reply = iq.reply()  # to iq["from"], a pseudonym of the requester
        reply["service"]["words"] = str(len(iq["service"]["text"].split()))
        reply["service"]["backend"] = self.boundjid.resource
        reply.send()


async def main():
    await Backend(*Options(__doc__).read()).run()


asyncio.run(main())
