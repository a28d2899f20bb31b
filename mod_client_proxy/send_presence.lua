-- How presence is sent that others are told after: an error in another module's handler interrupts nothing.

-- (stanza)
return function (stanza)
	local ok, problem = pcall(module.send, module, stanza);
	if not ok then
		module:log("error", "Another module's handler has failed on a presence: %s", problem);
	end
end
