"""What the examples in Python have in common, to be copied with them: a client that stays connected, and that says
in one line what is wrong.

It ends with the status 0 after SIGTERM or SIGINT. Before, it gets no new requests, and answers those that it has. It
ends with 1 if the server's certificate cannot be trusted, and with 2 if the client itself is called or set up wrongly,
as it is with a wrong password: to start it again is of no use before somebody has changed that. If the server or the
network is away, it does not end, but tries again, after pauses that grow.
"""
import argparse
import asyncio
import logging
import os
import random
import signal
import ssl
import sys

CONNECT_TIMEOUT = 30  # seconds until a new connection has to be of use
PING_INTERVAL = 60  # seconds from one look at whether the server is still there to the next
PING_TIMEOUT = 30
LEAVE_TIMEOUT = 10  # seconds for what is still to be answered when it ends
FIRST_PAUSE = 1  # seconds until it connects again; it doubles each time
LONGEST_PAUSE = 60


def log(text):
    print(f"{os.path.basename(sys.argv[0])}: {text}", file=sys.stderr, flush=True)


def give_up(text, status=2):
    log(text)
    sys.exit(status)


# What slixmpp logs by itself is printed, but what is of no interest, or is said below with more to it.
UNPRINTED = ("Using slower stringprep", "CERT: Invalid certificate", "No appropriate login method")
logging.lastResort.addFilter(lambda record: not record.getMessage().startswith(UNPRINTED))
try:
    from slixmpp import ClientXMPP, Iq, JID
    from slixmpp.exceptions import IqError, IqTimeout
    from slixmpp.jid import InvalidJID
except ImportError as error:
    give_up(f"slixmpp is missing, which is python3-slixmpp on Debian ({error})")


class Options(argparse.ArgumentParser):
    """The command line: who the client is, and how it proves that"""

    def __init__(self, description):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("jid", metavar="JID", type=self.read_account, help="the account's address, with a resource or without")
        self.add_argument("--ca", metavar="FILE", help="the certificates of the only authorities to trust (PEM)")
        self.add_argument("--password-file", metavar="FILE", help="where the password is, if not in $XMPP_PASSWORD")

    @staticmethod
    def read_address(text):
        try:
            return JID(text)
        except InvalidJID:
            raise argparse.ArgumentTypeError(f'"{text}" is no address') from None

    def read_account(self, text):
        jid = self.read_address(text)
        if not jid.user:
            raise argparse.ArgumentTypeError(f'"{text}" is no account\'s address, such as some-user@some-domain.example')
        return jid

    def read(self):
        """-> all options, the password, and a TLS context"""
        options = self.parse_args()
        try:
            password = self.read_password(options.password_file)
            (password or "").encode()
            tls = ssl.create_default_context(cafile=options.ca)
        except OSError as error:  # an SSLError is one, too
            self.error(f"cannot read {error.filename or options.ca}: {error.strerror}")
        except UnicodeError:
            self.error("the password is not written in UTF-8")
        if not password:
            self.error("there is no password: set XMPP_PASSWORD, or name a file with --password-file")
        return options, password, tls

    @staticmethod
    def read_password(path):
        if not path:
            return os.environ.get("XMPP_PASSWORD")
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\r\n")

    def error(self, message):
        give_up(message)


class Client(ClientXMPP):
    def __init__(self, options, password, tls):
        # slixmpp 1.8 would log in without encryption if the server said that it has none
        super().__init__(options.jid, password, plugin_config={"feature_mechanisms": {"unencrypted_scram": False}})
        self.ssl_context, self.ca_certs = tls, options.ca
        self.register_plugin("xep_0199")  # pings
        self.over = self.loop.create_future()  # its result: None, or the status to end with and why
        self.lost = self.refusal = self.login_refusal = None
        self.session = asyncio.Event()  # set while it is logged in
        self.under_way, self.idle = set(), asyncio.Event()  # requests that are not answered yet; set while there is none
        self.add_filter("in", self.see_request)
        self.add_filter("out", self.see_answer)
        self.add_event_handler("session_start", lambda event: self.on_session())
        self.add_event_handler("disconnected", self.on_disconnected)
        self.add_event_handler("failed_auth", self.on_failed_login)
        self.add_event_handler("failed_all_auth", lambda event: self.on_no_login())
        self.add_event_handler("stream_error", self.on_stream_error)
        for event in ("ssl_invalid_chain", "connection_failed"):
            self.add_event_handler(event, self.on_failed_connection)

    def see_request(self, stanza):
        if isinstance(stanza, Iq) and stanza["type"] in ("get", "set"):
            self.under_way.add((stanza["from"], stanza["id"]))
            self.idle.clear()
        return stanza

    def see_answer(self, stanza):
        if isinstance(stanza, Iq) and stanza["type"] in ("result", "error"):
            self.under_way.discard((stanza["to"], stanza["id"]))
            if not self.under_way:
                self.idle.set()
        return stanza

    def on_session(self):
        self.under_way.clear()
        self.idle.set()
        self.send_presence()  # from now on, it gets requests
        self.session.set()

    def on_disconnected(self, reason):
        self.session.clear()
        if self.lost and not self.lost.done():
            self.lost.set_result(reason or "the connection has ended")

    def end(self, *result):
        if not self.over.done():
            self.over.set_result(result)

    def on_failed_connection(self, error):
        if isinstance(error, ssl.SSLCertVerificationError):
            self.end(1, f"the certificate of {self.boundjid.domain} cannot be trusted: {error.verify_message}")
        self.refusal = error

    def on_failed_login(self, failure):
        self.login_refusal = failure["condition"]

    def on_no_login(self):
        if self.login_refusal and self.login_refusal != "temporary-auth-failure":
            self.end(2, f"{self.boundjid.bare} cannot log in: {self.login_refusal}. Is the password right?")
        else:
            self.refusal = self.login_refusal or "the server has no safe way to log in"

    def on_stream_error(self, error):
        self.session.clear()
        self.refusal = error["condition"]
        if error["condition"] == "conflict":
            self.end(2, f"{self.boundjid.full} has logged in elsewhere; each copy needs a resource of its own")

    def reschedule_connection_attempt(self):
        # slixmpp calls this when it cannot connect, and would try again by itself, after up to five minutes.
        self.cancel_connection_attempt()
        self.on_disconnected(self.refusal)

    async def live(self):
        """Connects; returns if the server does not answer, or not any more."""
        self.connect()
        try:
            await asyncio.wait_for(self.session.wait(), CONNECT_TIMEOUT)
            while True:
                await asyncio.sleep(PING_INTERVAL)
                await self.ping(PING_TIMEOUT)
        except (asyncio.TimeoutError, IqTimeout):
            return "the server does not answer"

    async def ping(self, timeout):
        """Returns when the server has answered, and all that it had sent before has come."""
        try:
            await self["xep_0199"].send_ping(self.boundjid.domain, timeout=timeout)
        except IqError:
            pass  # which is an answer, too

    async def stay_connected(self):
        pause = FIRST_PAUSE
        while not self.over.done():
            began, self.lost = self.loop.time(), self.loop.create_future()
            self.refusal = self.login_refusal = None
            life = asyncio.ensure_future(self.live())
            await asyncio.wait({life, self.lost, self.over}, return_when=asyncio.FIRST_COMPLETED)
            if self.over.done():
                life.cancel()
                return
            reason = self.refusal or (life if life.done() else self.lost).result()
            life.cancel()
            self.session.clear()
            self.drop()
            if self.loop.time() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            await self.wait(reason, pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def drop(self):
        self.cancel_connection_attempt()
        if self.transport:
            self.transport.abort()  # slixmpp's own abort() fails if the transport is being closed already

    async def wait(self, reason, pause):
        pause *= random.uniform(0.5, 1)  # so that not all copies come at the same time
        log(f"not connected ({reason}), trying again in {pause:.1f} s")
        await asyncio.wait({self.over}, timeout=pause)

    async def finish(self):
        """Has the proxy send no more, and returns when all that has come until then is answered."""
        self.send_presence(ppriority=-1)
        await self.ping(2 * LEAVE_TIMEOUT)
        await self.idle.wait()

    async def leave(self):
        if self.session.is_set():
            finish = asyncio.ensure_future(self.finish())
            await asyncio.wait({finish, self.lost}, timeout=LEAVE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if not finish.done():
                finish.cancel()
                log("some requests may not have been answered")
            self.send_presence(ptype="unavailable")
            await self.disconnect()
        self.drop()

    async def run(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self.loop.add_signal_handler(number, self.end)
        await self.stay_connected()
        await self.leave()
        if self.over.result():
            status, text = self.over.result()
            give_up(text, status)
