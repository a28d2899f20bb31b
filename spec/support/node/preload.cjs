// For spec/e2e/example_spec.lua, loaded before the example: XMPP is served at $XMPP_PORT on loopback, whatever the
// domain. If $IMPATIENT is set, whatever the example waits for takes a thirtieth of the time.
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
	timers.setTimeout = (milliseconds, ...others) => sleep(milliseconds / 30, ...others);
}
syncBuiltinESMExports();
