-- What each backend sees of a requester: the address format that the operator has asked for. If none was asked for, that
-- is the default, but a Jicofo sees plain addresses. Jicofo, a part of Jitsi Meet, takes the resource of `from` for the
-- JID of whoever asks, and by that decides who may open a room. So Jitsi's own configuration, which asks for nothing,
-- works as it is.

local addresses = module:require "addresses";

-- The only format that a Jicofo can read
local FOR_JICOFO = "plain";

-- How many Jicofos an operator is told of by name
local NAMED = 3;

local formats = {};
formats.__index = formats;

-- The format of core.FORMATS that backends see if none is asked for
formats.DEFAULT = "short";

-- Tells the pool, for a backend that is in there.
local function tell_pool(self, backend)
	local is_exception = self.jicofos[backend] and not self.asked_for;
	self.pool:set_format(backend, is_exception and FOR_JICOFO or nil);
end

-- -> who the Jicofos are, and in which words ("which is a Jicofo", or many) | nil if there is none
local function name_jicofos(self)
	local names = {};
	for backend in pairs(self.jicofos) do
		table.insert(names, ("%q"):format(addresses.resource(backend)));
	end
	if not names[2] then
		return names[1], "which is a Jicofo";
	end
	table.sort(names);
	local rest = #names - NAMED;
	local last = rest > 0 and ("%d more"):format(rest) or table.remove(names);
	return ("%s and %s"):format(table.concat(names, ", ", 1, math.min(#names, NAMED)), last), "which are Jicofos";
end

-- (setup) -> formats
-- setup: { address_format (what the operator has asked for, or nil), pool (the backends that saved names are in there),
--          saved (what save() returned before a reload, or nil) }
function formats.new(setup)
	local self = setmetatable({
		asked_for = setup.address_format, pool = setup.pool;
		jicofos = setup.saved or {}; -- by the JIDs of those backends that are: true
	}, formats);
	for backend in pairs(self.jicofos) do
		tell_pool(self, backend); -- the option may have changed
	end
	return self;
end

-- (backend, is_jicofo): a presence of this backend, which is in the pool, has come. From now on it sees what it can read.
-- is_jicofo: what presence.names_jicofo() says; nil: what it was before
function formats:set(backend, is_jicofo)
	if is_jicofo ~= nil then
		self.jicofos[backend] = is_jicofo or nil;
		tell_pool(self, backend);
	end
end

-- (backend): it is no backend any more. Another client may come under the same address.
function formats:forget(backend)
	self.jicofos[backend] = nil;
end

-- -> for an operator: which format backends see, and who sees another one, or cannot read it
function formats:describe()
	local format = self.asked_for or formats.DEFAULT;
	local names, who = name_jicofos(self);
	if not names or format == FOR_JICOFO then
		return format;
	elseif self.asked_for then
		return ("%s, which cannot be read by %s, %s"):format(format, names, who);
	end
	return ("%s; %s for %s, %s"):format(format, FOR_JICOFO, names, who);
end

-- -> level ("info" or "warn"), what there is to say after "requests are served", or ""
function formats:remark()
	local names, who = name_jicofos(self);
	if not names or self.asked_for == FOR_JICOFO then
		return "info", "";
	elseif self.asked_for then
		return "warn", (", but client_proxy_address_format = %q cannot be read by %s, %s: requests are taken for ones of a "
			.."wrong sender there. Write %q instead, or leave that line out"):format(self.asked_for, names, who, FOR_JICOFO);
	end
	return "info", ("; %s, %s, sees %s addresses"):format(names, who, FOR_JICOFO);
end

-- -> what a reload has to carry over
function formats:save()
	return self.jicofos;
end

return formats;
