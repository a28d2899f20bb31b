-- The page of mod_http_openmetrics shows what Prosody has been told, and is to be right when it is asked for.
--
-- With statistics_interval = "manual" that module fires stats-update before it draws the page. With an interval
-- it draws what the last one has left. So we listen for the HTTP request, and are asked before that module is.

local get_option = require "core.configmanager".get;
local http_server = require "net.http.server";
local normalize_path = require "util.http".normalize_path;

local page = {};

-- (update): calls this before the page is drawn.
function page.hook(update)
	local paths = get_option("*", "http_paths"); -- as mod_http reads it for a module that is on no host
	local path = type(paths) == "table" and paths.openmetrics;
	module:hook_object_event(http_server, "GET "..normalize_path(type(path) == "string" and path or "/metrics"), function ()
		update(); -- returns nothing, so that the page is drawn
	end, 10);
end

return page;
