#!/usr/bin/env node
// A backend to copy, together with client.js and package.json, which counts the words of a text. Run it as often as you like:
//
//     npm ci
//     XMPP_PASSWORD=... node backend.js some-user@some-domain.example
//
// The server gives each copy a resource of its own, unless the address has one. NODE_EXTRA_CA_CERTS names a file with the
// certificate of an authority to trust besides the usual ones.

import { run, xml } from "./client.js";

// <query xmlns='urn:example:service'><text>three words here</text></query>
await run((xmpp) => {
	xmpp.iqCallee.get("urn:example:service", "query", ({ element }) => {
		const words = element.getChildText("text")?.match(/\S+/g) ?? [];
		return xml("query", { xmlns: "urn:example:service" }, [
			xml("words", {}, String(words.length)),
			xml("backend", {}, xmpp.jid.resource),
		]);
	});
});
