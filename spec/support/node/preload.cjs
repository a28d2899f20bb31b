// For spec/e2e/example_spec.lua, loaded before the example: XMPP is served at $XMPP_PORT on loopback, whatever the
// domain. If $IMPATIENT is set, the example asks every half second whether the server is still there, and waits for its
// answer for four.
"use strict";

const dns = require("node:dns/promises");
const { syncBuiltinESMExports } = require("node:module");
const timers = require("node:timers/promises");

dns.resolveSrv = async (name) => {
	if (!name.startsWith("_xmpp-client._tcp.")) {
		throw new Error("no such record");
	}
	return [{ priority: 0, weight: 0, name: "127.0.0.1", port: Number(process.env.XMPP_PORT) }];
};

if (process.env.IMPATIENT) {
	const sleep = timers.setTimeout;
	const hurried = { 60_000: 500, 30_000: 4_000 };
	timers.setTimeout = (milliseconds, ...others) => sleep(hurried[milliseconds] ?? milliseconds, ...others);
}
syncBuiltinESMExports();
