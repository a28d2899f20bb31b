-- Tells spec/support/prosody.lua, on standard output, what no stream tells a spec:
-- that Prosody is up, and which sessions hibernate.
module:set_global();

local function announce(...)
	io.stdout:write("SPEC: ", table.concat({ ... }, " "), "\n");
	io.stdout:flush();
end

module:hook("server-started", function ()
	announce("STARTED");
end, -1000);

function module.add_host(module)
	module:hook("smacks-hibernation-start", function (event)
		announce("HIBERNATING", event.origin.full_jid);
	end, -1000);
end
