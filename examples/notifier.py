#!/usr/bin/env python3
"""A notifier to copy, together with client.py: each line "TOPIC TEXT" of its standard input goes to those who have
subscribed to the topic. Run it as often as you like; each copy gets all lines, and tells those who have subscribed with it:

    tail -F lines | XMPP_PASSWORD=... python3 notifier.py some-user@some-domain.example

Users write "subscribe news" to the service address, or execute its command (XEP-0050). What to know when you copy it:

* All it knows of a user is an address, proxy.domain.example/TOKEN, which stands for one client of the user's, for as long
  as the proxy remembers it: until Prosody restarts, or longer with client_proxy_address_format = "sealed" or "signed",
  which is what you need if you store addresses. This one stores none: its subscriptions end with it.
* Whatever comes from one account goes to the same copy, and replies to the copy that has written. When copies come or go,
  some accounts go to another one, which knows nothing of them, while the first goes on to tell them what they subscribed to.
* Each message is given to one copy at most: what comes to one that is just going may be lost, or come back to its sender.
* If any client of the account has carbons on (XEP-0280), as people's clients have, it also gets what the others send, unless
  that has <private xmlns='urn:xmpp:carbons:2'/> in it, which keeps it from the user's other clients as well. What the others
  get has this already: the proxy adds it.
* No two copies can have the same resource. The server gives each copy one of its own, unless the address has one.
"""
import asyncio
import re
import sys
from collections import OrderedDict

from client import Client, IqError, IqTimeout, Options, give_up  # first, as it says so if slixmpp is missing
from slixmpp.exceptions import XMPPError
from slixmpp.plugins.xep_0004 import Form

TOPICS = ("news", "weather")
HELP = f'Write "subscribe TOPIC" or "unsubscribe TOPIC". Topics are: {", ".join(TOPICS)}.'
MAX_USERS = MAX_SESSIONS = 10000  # as anybody can make them


class Sessions(OrderedDict):  # of commands. Some are never completed, so the oldest ones go.
    def __setitem__(self, key, session):
        super().__setitem__(key, session)
        if len(self) > MAX_SESSIONS:
            self.popitem(last=False)


class Notifier(Client):
    def __init__(self, *settings):
        super().__init__(*settings)
        self.topics = {}  # by the address of a user: a set
        self.round = None  # see ask_all()
        self.register_plugin("xep_0050", {"session_db": Sessions()})
        self.add_event_handler("message", self.on_message)
        # signs that a user has gone
        self.add_event_handler("message_error", lambda message: self.forget(message["from"]))
        self.add_event_handler("presence_unavailable", lambda presence: self.forget(presence["from"]))

    def on_session(self):
        self["xep_0050"].add_command(node="subscribe", name="Subscribe", handler=self.on_command)
        super().on_session()  # from now on, it gets messages and commands
        for user in self.topics:  # of whom there are some if the connection had been lost
            self.send_presence(pto=user)

    def on_message(self, message):
        if message["type"] not in ("chat", "normal"):  # above all, an error is never answered
            return
        match message["body"].split():
            case ["subscribe", topic]:
                answer = self.subscribe(message["from"], topic)
            case ["unsubscribe", topic]:
                answer = self.unsubscribe(message["from"], topic)
            case _:
                answer = HELP
        message.reply(answer).send()

    def on_command(self, iq, session):  # its first stage
        form = self["xep_0004"].make_form("form", "Subscribe")
        options = [{"label": topic, "value": topic} for topic in TOPICS]
        form.add_field("topic", "list-single", "Topic", required=True, options=options)
        session["payload"], session["next"] = form, self.on_form
        return session

    def on_form(self, form, session):  # its second stage
        if not isinstance(form, Form):
            raise XMPPError("bad-request")
        session["notes"] = [("info", self.subscribe(session["from"], form["values"].get("topic")))]
        session["payload"], session["next"] = None, None
        return session

    def subscribe(self, user, topic):
        if topic not in TOPICS:
            return HELP
        if user not in self.topics:
            if len(self.topics) >= MAX_USERS:
                return "There are too many subscribers. Please try again later."
            self.topics[user] = set()
            self.send_presence(pto=user)  # so that the user sees it when this copy goes
        self.topics[user].add(topic)
        return f"You get {topic} from now on."

    def unsubscribe(self, user, topic):
        topics = self.topics.get(user, set())
        topics.discard(topic)
        if not topics and self.forget(user):
            self.send_presence(pto=user, ptype="unavailable")
        return f"You get no {topic} from here."

    def forget(self, user):
        return self.topics.pop(user, None) is not None

    def publish(self, topic, text):
        for user, topics in self.topics.items():
            if topic in topics:
                self.send_message(user, text, mtype="chat")
        if self.round is None or self.round.done():
            self.round = self.wrap(self.ask_all())

    async def ask_all(self):  # as not all who go say so, and not all messages bounce
        for user in list(self.topics):
            await self.session.wait()
            try:
                await self["xep_0199"].ping(user)
            except IqTimeout:
                pass  # a phone that is asleep, for example
            except IqError as error:
                if error.etype == "cancel" and error.condition != "feature-not-implemented":
                    self.forget(user)

    async def read(self, lines):
        async for line in lines:
            await self.session.wait()
            topic, _, text = line.decode(errors="replace").strip().partition(" ")
            self.publish(topic, re.sub("[\x00-\x1f\ufffe\uffff]", " ", text))  # what XML cannot have


async def main():
    notifier = Notifier(*Options(__doc__).read())
    lines = asyncio.StreamReader()
    try:
        await notifier.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    except ValueError:
        give_up("its standard input has to be a pipe, that of tail -F for example")
    reading = asyncio.create_task(notifier.read(lines))  # while there is a name for it
    await notifier.run()
    reading.cancel()


asyncio.run(main())
