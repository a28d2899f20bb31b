-- A copy of what the module is built from, and of what was built, for specs that build it in another way.

local checkout = {};

-- (folder): copies it there, with its times, so that make finds nothing to do
function checkout.copy(folder)
	assert(os.execute(("mkdir -p '%s' && cp -a --parents Makefile *.markdown LICENSE c_src debian doc examples mod_client_proxy rockspec "
		..".build/built_with '%s'"):format(folder, folder)));
end

return checkout;
