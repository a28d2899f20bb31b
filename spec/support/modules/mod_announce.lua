-- Tells spec/support/prosody.lua, on standard output, what no stream tells a spec:
-- that Prosody is up, and which sessions hibernate. With announce_hibernation = false, not
-- the latter: when nobody reads what a server prints, it has to wait at some time.
module:set_global();

local function announce(...)
	io.stdout:write("SPEC: ", table.concat({ ... }, " "), "\n");
	io.stdout:flush();
end

module:hook("server-started", function ()
	announce("STARTED");
end, -1000);

function module.add_host(module)
	if not module:get_option_boolean("announce_hibernation", true) then
		return;
	end
	module:hook("smacks-hibernation-start", function (event)
		announce("HIBERNATING", event.origin.full_jid);
	end, -1000);
end
