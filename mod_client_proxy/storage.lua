-- What Prosody's storage does not say by itself.

local datamanager = require "util.datamanager";
local get_driver = require "core.storagemanager".get_driver;

local storage = {};

-- (store, key) -> whether there is a file for what a keyval store of this host has under a key, nil or a text. To be
-- asked where nothing has been read: Prosody's internal storage reads an empty file, as a full disk leaves one behind,
-- like none at all.
function storage.has_file(store, key)
	local _, driver_name = get_driver(module.host, store);
	local file = driver_name == "internal" and io.open(datamanager.getpath(key, module.host, store));
	return file and file:close() or false;
end

return storage;
