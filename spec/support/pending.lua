-- A pending table with a book of its own, for specs in which it does not matter whose the book is.

local core = require "mod_client_proxy.core";

local pending = {};

-- (seed) -> pending, book
-- seed: the table's, PENDING_SEEDBYTES bytes; the book's is made of the same
function pending.new(seed)
	local book = assert(core.requesters(seed:rep(core.REQUESTERS_SEEDBYTES):sub(1, core.REQUESTERS_SEEDBYTES)));
	return core.pending(seed, book), book;
end

return pending;
