-- What a component whose target is some-user@some-domain.example, with the resources a, b and c, is known to choose by
-- spec/vectors/ring.py: by strategy and number, the resource that user-NUMBER@component.example falls to, or
-- room-NUMBER at the component.

local service = require "spec.support.service";
local vectors = require "spec.vectors.ring";
local sha256 = require "util.hashes".sha256;

local STRATEGIES = { user = "sender", room = "recipient" };

local known = { sender = {}, recipient = {} };
for _, vector in ipairs(vectors) do
	if vector.key == sha256(service.target):sub(1, 16) then
		for _, case in ipairs(vector.texts) do
			local what, number = case[1]:match("^(%l+)%-(%d+)");
			known[STRATEGIES[what]][tonumber(number)] = vector.members[case[2]]:match("/(.*)$");
		end
	end
end

return known;
