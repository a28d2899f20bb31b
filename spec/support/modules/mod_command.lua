-- A command of the component's own (XEP-0050), by mod_adhoc

local new_command = module:require "adhoc".new;

module:provides("adhoc", new_command("Own command", "own-command", function ()
	return { status = "completed", info = "Done here" };
end, "any"));
