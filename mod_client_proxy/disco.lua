-- Service discovery (XEP-0030): what a client may ask before it talks to a service.
--
-- Without other modules on the component, all these queries go to a backend, as any request does. Prosody's mod_disco,
-- where it is loaded there, answers for the component itself. It then tells the identity that is given to it here, and
-- leaves to a backend what it is asked about nodes that no module knows: those of commands (XEP-0050), for example.

local DISCO_ITEMS = "http://jabber.org/protocol/disco#items";

local disco = {};

-- (stanza, addresses): a backend's result is about to go to its requester, from the service address in its `from`.
-- In the list of commands, libraries give as their address the one that they are logged in at. A client that went on with
-- that one would talk to the target past the service, so it gets the service address instead (XEP-0050 section 3.1).
function disco.translate_items(stanza, addresses)
	local query = stanza.tags[1];
	if not query or query.attr.xmlns ~= DISCO_ITEMS then
		return;
	end
	for _, item in ipairs(query.tags) do
		local attr = item.attr;
		local is_item = item.name == "item" and (attr.xmlns or DISCO_ITEMS) == DISCO_ITEMS;
		if is_item and attr.jid and addresses:names_target(attr.jid) then
			attr.jid = stanza.attr.from;
		end
	end
end

-- (on_query): to be called when the module is loaded
-- on_query: the handler that gives a query to a backend, given an event with origin and stanza
-- The events are mod_disco's, in both versions. A module that knows the node says so in the event, or answers.
function disco.start(on_query)
	module:add_identity("component", "generic", module:get_option_string("name", "Client proxy"));
	local function on_node(event)
		if not event.exists then
			return on_query(event);
		end
	end
	module:hook("host-disco-info-node", on_node, -10);
	module:hook("host-disco-items-node", on_node, -10);
end

return disco;
