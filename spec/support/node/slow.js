// For spec/e2e/example_spec.lua: a backend made of examples/node/client.js that answers a request when SIGUSR2 comes

import { once } from "node:events";
import { run } from "./client.js";

await run((xmpp) => {
	xmpp.iqCallee.set("urn:example:service", "query", async () => {
		console.log("asked");
		await once(process, "SIGUSR2");
		return true;
	});
});
