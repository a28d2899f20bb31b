#!/usr/bin/env python3
"""Asks the service of backend.py, at its address, how many words a text has:

    XMPP_PASSWORD=... python3 request.py user@some-domain.example proxy.domain.example three words here

It needs client.py beside it. Its status is 0 if it has got an answer, else it prints one line that says why not.
"""
import asyncio
from xml.etree import ElementTree

from client import Client, IqError, IqTimeout, Options

NAMESPACE = "{urn:example:service}"
TIMEOUT = 70  # seconds; the proxy itself answers after client_proxy_request_timeout, 60 if it is not set


class Requester(Client):
    def __init__(self, options, *settings):
        super().__init__(options, *settings)
        self.service, self.text = options.service, " ".join(options.words)

    def on_session(self):
        self.session.set()
        self.wrap(self.ask())

    async def ask(self):
        request = self.make_iq_get(ito=self.service)
        query = ElementTree.SubElement(request.xml, NAMESPACE + "query")
        ElementTree.SubElement(query, NAMESPACE + "text").text = self.text
        try:
            answer = await request.send(timeout=TIMEOUT)
        except IqTimeout:
            self.end(1, f"{self.service} has not answered")
        except IqError as error:
            self.end(1, f"{self.service} has answered with an error: {error.condition} {error.text}".strip())
        else:
            words = answer.xml.findtext(f"{NAMESPACE}query/{NAMESPACE}words")
            backend = answer.xml.findtext(f"{NAMESPACE}query/{NAMESPACE}backend")
            print(f"Words: {words}, counted by {backend}")
            self.end()

    async def finish(self):  # nobody sends it requests
        pass

    async def wait(self, reason, pause):  # in Client, it tries again afterwards
        self.end(1, f"not connected: {reason}")


async def main():
    options = Options(__doc__)
    options.add_argument("service", metavar="SERVICE", type=options.read_address, help="the service address")
    options.add_argument("words", metavar="WORD", nargs="+")
    await Requester(*options.read()).run()


asyncio.run(main())
