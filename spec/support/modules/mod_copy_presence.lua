-- For specs with another server: sends a copy of the presence that this host gets to
-- copy_presence_to, whose client then knows that it has been dealt with.

local st = require "util.stanza";

local copy_to = module:get_option_string("copy_presence_to");

module:hook("presence/host", function (event)
	module:send(st.message({ from = module.host, to = copy_to }):add_child(event.stanza));
end, 1000);
