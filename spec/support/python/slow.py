"""For spec/e2e/example_spec.lua: a backend made of examples/client.py that answers each request when SIGUSR2 comes"""

import asyncio
import signal
import sys

sys.path.insert(0, "examples")
from client import Client, Options
from slixmpp.xmlstream.handler import CoroutineCallback
from slixmpp.xmlstream.matcher import StanzaPath


class Slow(Client):
    def __init__(self, *settings):
        super().__init__(*settings)
        self.allowed = asyncio.Event()
        self.loop.add_signal_handler(signal.SIGUSR2, self.allowed.set)
        self.register_handler(CoroutineCallback("request", StanzaPath("iq@type=set"), self.on_request))

    async def on_request(self, iq):
        print("asked", flush=True)
        await self.allowed.wait()
        iq.reply().send()


async def main():
    await Slow(*Options(__doc__).read()).run()


asyncio.run(main())
