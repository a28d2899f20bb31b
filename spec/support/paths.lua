-- busted's helper: where the specs find core.so and, under a Prosody, its libraries.
--
--     CORE_DIR      the folder whose mod_client_proxy/core.so is tested (default: the checkout)
--     PROSODY_ROOT  the unpacked Prosody to test on, with its start scripts at the top

package.path = "./?.lua;"..package.path;
package.cpath = (os.getenv("CORE_DIR") or ".").."/?.so;"..package.cpath;

local root = os.getenv("PROSODY_ROOT");
if root then
	local lib = root.."/usr/lib/prosody";
	package.path = lib.."/?.lua;"..package.path;
	package.cpath = lib.."/?.so;"..package.cpath;
	if io.open(lib.."/loader.lua") then -- from Prosody 13 on
		require "loader";
	end
end
