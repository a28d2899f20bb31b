-- The entry in the roster of a target on this Prosody that lets the proxy see its presence: made and taken back, as
-- the configuration stands for the consent of the account's owner.

local addresses = module:require "addresses";

local rostermanager = require "core.rostermanager";
local user_exists = require "core.usermanager".user_exists;

local roster = {};

-- Notes in the entry that the module has made it. The note goes when somebody else changes the entry. -> whether it
-- could be saved
local function mark_as_ours(node, host)
	local items = rostermanager.load_roster(node, host);
	items[module.host].made_by = module.name;
	return rostermanager.save_roster(node, host, items, module.host);
end

-- (target) -> whether there is such an account
function roster.has_account(target)
	return user_exists(addresses.split(target));
end

-- (target) -> whether anything had to be done | nil, what is wrong
-- Makes the entry if it is not there, as if the account's owner had accepted the request (RFC 6121 section 3.1.5).
function roster.approve(target)
	local node, host = addresses.split(target);
	local is_approved, load_error = rostermanager.is_contact_subscribed(node, host, module.host);
	if load_error then
		return nil, load_error;
	elseif is_approved then
		return false;
	end
	if not (rostermanager.set_contact_pending_in(node, host, module.host)
		and rostermanager.subscribed(node, host, module.host) and mark_as_ours(node, host)) then
		return nil, "it cannot be saved";
	end
	rostermanager.roster_push(node, host, module.host);
	return true;
end

-- -> the items of its roster, none if it is not an account of this Prosody
local function items_of(node, host)
	local session = prosody.hosts[host];
	local is_here = session and session.type == "local" and user_exists(node, host);
	return is_here and rostermanager.load_roster(node, host) or {};
end

-- (target): it is the target no longer. What the module has granted in its roster is taken back.
function roster.withdraw(target)
	local node, host = addresses.split(target);
	local items = items_of(node, host);
	local item = items[module.host];
	if not item or item.made_by ~= module.name then
		return;
	end
	rostermanager.unsubscribed(node, host, module.host);
	item.made_by = nil;
	if item.subscription == "none" and not item.ask and not item.name and not next(item.groups) then
		items[module.host] = nil;
	end
	rostermanager.save_roster(node, host, items, module.host);
	rostermanager.roster_push(node, host, module.host);
end

return roster;
