-- For specs with a target on a played server: what all of them begin with.

local new_account = require "spec.support.played_account".new;
local new_played_server = require "spec.support.played_server".new;
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";

local played_target = {};

-- (options) -> a Prosody, not yet running; the played server of some-domain.example; the target's account there
-- options: see spec/support/prosody.lua. Its s2s is added, by which each of the two servers finds the other one.
function played_target.new(options)
	local port, played_port = throwaway.free_port(), throwaway.free_port();
	options.s2s = { port = port, peer_port = played_port };
	local played = new_played_server { domain = "some-domain.example", port = played_port, peer_port = port };
	return new_prosody(options), played, new_account(played, service.target);
end

return played_target;
