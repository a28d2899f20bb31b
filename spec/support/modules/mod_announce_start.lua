-- Tells spec/support/prosody.lua, on standard output, that Prosody is up.
module:set_global();

module:hook("server-started", function ()
	io.stdout:write("SPEC: STARTED\n");
	io.stdout:flush();
end, -1000);
