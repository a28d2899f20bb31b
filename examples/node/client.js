// What a client in Node needs to run as a service, to be copied with backend.js: it stays connected, and says in one
// line what is wrong. Exit statuses are those of client.py: 0 after SIGTERM or SIGINT, before which requests are
// answered; 1 if the server's certificate cannot be trusted; 2 if it is called or set up wrongly, as it is with a wrong
// password, so that to start it again is of no use before somebody has changed that.

import { randomUUID, webcrypto } from "node:crypto";
import { resolveSrv } from "node:dns/promises";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

const CONNECT_TIMEOUT = 30_000; // ms until a new connection has to be of use
const PING_INTERVAL = 60_000; // ms from one look at whether the server is still there to the next
const PING_TIMEOUT = 30_000;
const FIRST_PAUSE = 1_000; // ms until it connects again; it doubles each time
const LONGEST_PAUSE = 60_000;
const LEAVE_TIMEOUT = 10_000; // ms for what is still to be answered when it ends
const BAD_CERTIFICATE = /CERT|SIGNATURE|ISSUER|INVALID_CA|INVALID_PURPOSE/; // in the code of an error

function log(text) {
	console.error(`${basename(process.argv[1])}: ${text}`);
}

function giveUp(text, status = 2) {
	log(text);
	process.exit(status);
}

globalThis.crypto ??= webcrypto; // which @xmpp/client expects there, as it is from Node 20 on
const { client, jid, xml } = await import("@xmpp/client").catch((error) => {
	giveUp(`@xmpp/client is missing, which npm ci installs (${error.code})`);
});
export { xml };

// -> { account, password }, from the command line
function readOptions() {
	let options, words, account;
	try {
		const known = { help: { type: "boolean", short: "h" }, "password-file": { type: "string" } };
		({ values: options, positionals: words } = parseArgs({ options: known, allowPositionals: true }));
	} catch (error) {
		giveUp(error.message);
	}
	if (options.help || words.length !== 1) {
		giveUp(`usage: ${basename(process.argv[1])} [--password-file FILE] JID`, options.help ? 0 : 2);
	}
	try {
		account = jid(words[0]);
	} catch {}
	if (!account?.local) {
		giveUp(`"${words[0]}" is no account's address, such as some-user@some-domain.example`);
	}
	const password = readPassword(options["password-file"]);
	if (!password) {
		giveUp("there is no password: set XMPP_PASSWORD, or name a file with --password-file");
	}
	return { account, password };
}

function readPassword(path) {
	try {
		return path ? readFileSync(path, "utf8").replace(/[\r\n]+$/, "") : process.env.XMPP_PASSWORD;
	} catch (error) {
		giveUp(`cannot read ${path}: ${error.message}`);
	}
}

// Where the server of a domain may be, the likeliest place first. What @xmpp/client would do by itself fails if the
// domain has no address of its own, and with Node 18.
async function findServers(domain) {
	const records = await resolveSrv(`_xmpp-client._tcp.${domain}`).catch(() => []);
	records.sort((a, b) => a.priority - b.priority || b.weight - a.weight);
	const places = records.length > 0 ? records : [{ name: domain, port: 5222 }];
	return places.map(({ name, port }) => `xmpp://${name}:${port}`);
}

// (setUp) keeps a client connected until it is told to end, or until it is of no use to try again. setUp(xmpp) tells each
// new connection's client what to answer.
export async function run(setUp) {
	const { account, password } = readOptions();
	const end = new AbortController();
	const ended = once(end.signal, "abort");
	for (const name of ["SIGINT", "SIGTERM"]) {
		process.on(name, () => end.abort());
	}
	let connection, pause = FIRST_PAUSE;
	// @xmpp/client can reject a promise before it looks at it.
	process.on("unhandledRejection", (error) => connection.xmpp.emit("error", error));
	for (let attempt = 0; ; attempt++) {
		const began = Date.now();
		connection = new Connection(account, password, setUp);
		const reason = await Promise.race([ended, connection.use(attempt)]);
		if (end.signal.aborted) {
			await connection.leave().catch(() => {});
			process.exit(0);
		}
		pause = Date.now() - began > LONGEST_PAUSE ? FIRST_PAUSE : pause;
		const wait = pause * (0.5 + Math.random() / 2); // so that not all copies come at the same time
		log(`not connected (${reason}), trying again in ${(wait / 1000).toFixed(1)} s`);
		await sleep(wait, undefined, { signal: end.signal }).catch(() => {});
		pause = Math.min(2 * pause, LONGEST_PAUSE);
	}
}

// One connection. There is no second one of the same client, as an old login may still listen there.
class Connection {
	// session: fulfilled when it is logged in; failed: when it has ended, with why
	#over = new AbortController(); // ends its timers
	#underWay = new Set(); // requests that are not answered yet

	constructor(account, password, setUp) {
		const userAgent = xml("user-agent", { id: randomUUID() });
		const credentials = async (authenticate, mechanisms) => {
			const mechanism = mechanisms.find((name) => name !== "ANONYMOUS");
			if (!this.xmpp.isSecure() || !mechanism) {
				throw new Error("the server has no safe way to log in");
			}
			await authenticate({ username: account.local, password }, mechanism, userAgent);
		};
		this.account = account;
		this.xmpp = client({ domain: account.domain, resource: account.resource, credentials, userAgent });
		this.xmpp.reconnect.stop(); // whose pauses do not grow
		this.#hideResumption();
		this.#watchRequests();
		this.session = once(this.xmpp, "online");
		this.failed = new Promise((resolve) => {
			this.xmpp.on("error", (error) => this.#onError(error, resolve));
			this.xmpp.on("disconnect", () => resolve("the connection has ended"));
		});
		setUp(this.xmpp);
	}

	// Nobody will resume the session (XEP-0198), so the server has no reason to keep it after the connection is lost.
	#hideResumption() {
		this.xmpp.prependListener("element", (element) => {
			element.children = element.children.filter((child) => !child.is?.("sm", "urn:xmpp:sm:3"));
		});
	}

	#watchRequests() {
		const { xmpp } = this;
		xmpp.on("stanza", ({ name, attrs: { type, from, id } }) => {
			if (name === "iq" && (type === "get" || type === "set")) {
				this.#underWay.add(`${from} ${id}`);
			}
		});
		xmpp.on("send", ({ name, attrs: { type, to, id } }) => {
			if (name === "iq" && (type === "result" || type === "error")) {
				this.#underWay.delete(`${to} ${id}`);
				xmpp.emit("answered");
			}
		});
	}

	#onError(error, fail) {
		const reason = error.message || error.code;
		if (this.#over.signal.aborted) {
			return;
		} else if (BAD_CERTIFICATE.test(error.code)) {
			giveUp(`the certificate of ${this.account.domain} cannot be trusted: ${reason}`, 1);
		} else if (error.name === "SASLError" && error.condition !== "temporary-auth-failure") {
			giveUp(`${this.account} cannot log in: ${reason}. Is the password right?`);
		} else if (error.name === "StreamError" && error.condition === "conflict") {
			giveUp(`${this.xmpp.jid} has logged in elsewhere; each copy needs a resource of its own`);
		} else if (this.xmpp.status === "online" && !error.syscall && error.name !== "StreamError") {
			console.error(error); // what answers requests has thrown it
		} else {
			fail(reason);
		}
	}

	// -> why it has ended
	async use(attempt) {
		const connected = this.#connect(attempt).then(() => this.failed);
		const reason = await Promise.race([this.failed, connected, this.#watch()]).catch((error) => error.message);
		this.#over.abort();
		this.xmpp.disconnect(); // what is left of it
		return reason;
	}

	async #connect(attempt) {
		const servers = await findServers(this.account.domain);
		this.#over.signal.throwIfAborted();
		await this.xmpp.connect(servers[attempt % servers.length]);
		await this.xmpp.open({ domain: this.account.domain });
		await this.session;
		await this.xmpp.send(xml("presence")); // from now on, it gets requests
	}

	// Returns when the server does not answer, or not any more.
	async #watch() {
		const { signal } = this.#over;
		let isAlive = await Promise.race([this.session, sleep(CONNECT_TIMEOUT, false, { signal })]);
		while (isAlive) {
			await sleep(PING_INTERVAL, undefined, { signal });
			isAlive = await this.#ping(PING_TIMEOUT);
		}
		return "the server does not answer";
	}

	// -> whether the server has answered, and thus all that it had sent before has come. An error is an answer, too.
	async #ping(timeout) {
		const id = randomUUID();
		const answered = new Promise((resolve) => {
			this.xmpp.on("stanza", ({ attrs }) => attrs.id === id && resolve(true));
		});
		await this.xmpp.send(xml("iq", { type: "get", to: this.account.domain, id }, xml("ping", { xmlns: "urn:xmpp:ping" })));
		return Promise.race([answered, sleep(timeout, false)]);
	}

	// Has the proxy send no more, and returns whether all that has come until then is answered.
	async #finish() {
		await this.xmpp.send(xml("presence", {}, xml("priority", {}, "-1")));
		await this.#ping(LEAVE_TIMEOUT);
		while (this.#underWay.size > 0) {
			await once(this.xmpp, "answered");
		}
		return true;
	}

	async leave() {
		if (this.xmpp.status !== "online") {
			return;
		}
		if (!(await Promise.race([this.#finish(), this.failed, sleep(LEAVE_TIMEOUT, false)]))) {
			log("some requests may not have been answered");
		}
		await this.xmpp.send(xml("presence", { type: "unavailable" }));
		await this.xmpp.stop();
	}
}
