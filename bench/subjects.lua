-- For bench/: what is measured side by side, each on a Prosody of its own: one client asks another, the
-- backend, with nothing between them or by way of a component.

require "spec.support.paths";
local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";
local st = require "util.stanza";

local TOKEN_LENGTH = 77; -- of a sealed token for our requester

local subjects = {};

local BENCH_MODULES = throwaway.checkout.."/bench/modules";
local TARGET = 'target_address = "some-user@some-domain.example"; client_proxy_max_pending_per_requester = 1000\n';
local PLAIN = 'client_proxy_address_format = "plain"\n';

-- (name, module, options, plugin_path) -> subject
-- module: the component's, nil for none; plugin_path: where that is, nil for the checkout
local function new_subject(name, module, options, plugin_path)
	local component = module and ('Component "proxy.domain.example" %q\n'):format(module)..options or "";
	return {
		name = name, plugin_path = plugin_path, is_direct = not module,
		hosts = 'VirtualHost "some-domain.example"\n'..component,
	};
end

local function null_options(token)
	return ('null_proxy_backend = "some-user@some-domain.example/a"; null_proxy_token = %q'):format(token);
end

function subjects.ours_sealed()
	return new_subject("ours_sealed", "client_proxy", TARGET);
end

-- The same, but nothing is counted.
function subjects.ours_uncounted()
	local subject = subjects.ours_sealed();
	subject.name, subject.statistics = "ours_uncounted", false;
	return subject;
end

-- (plugin_path) -> a list of subjects
-- plugin_path: where the module of 2018 is, or nil
function subjects.list(plugin_path)
	return {
		new_subject("direct"),
		new_subject("null", "null_proxy", null_options "", BENCH_MODULES),
		new_subject("null_long_token", "null_proxy", null_options(("t"):rep(TOKEN_LENGTH - 1)), BENCH_MODULES),
		subjects.ours_sealed(),
		new_subject("ours_plain", "client_proxy", TARGET..PLAIN),
		new_subject("2018-like", "naive_proxy", TARGET, BENCH_MODULES),
		plugin_path and new_subject("2018", "client_proxy", TARGET, plugin_path) or nil,
	};
end

-- Starts the subject's Prosody, by way of a command if one is given. As in production, nothing is
-- logged for a request; statistics are on, unless the subject's are not. -> server, requester,
-- backend (two connections of spec/support/xmpp.lua), the address to ask. The caller removes the server.
function subjects.start(subject, command)
	local server = prosody.new {
		hosts = subject.hosts, plugin_path = subject.plugin_path, log_level = "info", statistics = subject.statistics, run_by = command,
	};
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
