-- What is measured side by side, each on a Prosody of its own: one client asks another, the
-- backend, with nothing between them or by way of a component.

require "spec.support.paths";
local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";
local st = require "util.stanza";

local TOKEN_LENGTH = 77; -- of a sealed token for our requester

local subjects = {};

-- (name, module, options) -> subject; module: of the component, nil for none
local function subject(name, module, options)
	local component = module and ('Component "proxy.domain.example" %q\n'):format(module)..(options or "") or "";
	return { name = name, hosts = 'VirtualHost "some-domain.example"\n'..component, is_direct = not module };
end

local function null(name, token)
	local self = subject(name, "null_proxy",
		('null_proxy_backend = "some-user@some-domain.example/a"; null_proxy_token = %q'):format(token));
	self.plugin_path = throwaway.checkout.."/bench/modules";
	return self;
end

local TARGET = 'target_address = "some-user@some-domain.example"; client_proxy_max_pending_per_requester = 1000\n';

-- (plugin_path) -> a list of subjects, the first is the one to compare with
-- plugin_path: where the module of 2018 is, or nil
function subjects.list(plugin_path)
	local naive = subject("2018-like", "naive_proxy", TARGET);
	naive.plugin_path = throwaway.checkout.."/bench/modules";
	local list = {
		subject("direct"), null("null", ""), null("null_with_a_token_like_ours", ("t"):rep(TOKEN_LENGTH - 1)),
		subject("ours_sealed", "client_proxy", TARGET), subject("ours_plain", "client_proxy", TARGET..'client_proxy_address_format = "plain"'),
		naive,
	};
	if plugin_path then
		local old = subject("2018", "client_proxy", TARGET);
		old.plugin_path = plugin_path;
		table.insert(list, old);
	end
	return list;
end

-- Starts the subject's Prosody, by way of a command if one is given. As in production, nothing is
-- logged for a request; statistics are on. -> server, requester, backend (two connections of
-- spec/support/xmpp.lua), the address to ask. The caller removes the server.
function subjects.start(subject, command)
	local server = prosody.new { hosts = subject.hosts, plugin_path = subject.plugin_path, log_level = "info", run_by = command };
	server:start();
	local backend, requester = service.backend(server, "a"), service.requester(server);
	if not subject.is_direct then -- where nobody else tells the component of the backend
		backend:send(st.presence({ to = service.proxy, type = "subscribed" }));
		backend:send(st.presence({ to = service.proxy }));
		backend:sync();
	end
	return server, requester, backend, subject.is_direct and backend.jid or service.proxy;
end

return subjects;
