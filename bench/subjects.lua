-- For bench/: what is measured side by side, each on a Prosody of its own: one client, or some, ask another, the
-- backend, with nothing between them or by way of a component.

require "spec.support.paths";
local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";
local st = require "util.stanza";

local subjects = {};

local BENCH_MODULES = throwaway.checkout.."/bench/modules";
local TARGET = 'target_address = "some-user@some-domain.example"; client_proxy_max_pending_per_requester = 1000\n';
local TOKEN = "q"..("t"):rep(11); -- with a digit behind it as long as a short token

-- Prosody's own, and Debian's
local LIMITS = 'limits = { c2s = { rate = "10kb/s" }, s2sin = { rate = "30kb/s" } }\n';

-- (name, module, options, plugin_path) -> subject
-- module: the component's, nil for none; plugin_path: where that is, nil for the checkout
local function new_subject(name, module, options, plugin_path)
	return {
		name = name, plugin_path = plugin_path, is_direct = not module;
		component = module and ('Component "proxy.domain.example" %q\n'):format(module)..options or "";
	};
end

function subjects.direct()
	return new_subject("direct");
end

-- options: more of them than the backend and the token
local function null(name, options)
	return new_subject(name, "null_proxy",
		('null_proxy_backend = "some-user@some-domain.example/a"; null_proxy_token = %q; %s'):format(TOKEN, options), BENCH_MODULES);
end

-- The floor for any component that translates addresses
function subjects.null()
	return null("null", "");
end

-- The same, but the debug lines of what it sends are as cheap as ours.
function subjects.null_cheap()
	return null("null_cheap", ('null_proxy_top_tag = %q'):format(throwaway.checkout.."/mod_client_proxy/top_tag.lua"));
end

-- (format) -> ours as it is installed, with that address format; short is the default
function subjects.ours(format)
	return new_subject("ours_"..format, "client_proxy",
		TARGET..(format == "short" and "" or ('client_proxy_address_format = %q\n'):format(format)));
end

-- (strategy) -> ours, with that strategy
function subjects.ours_by(strategy)
	return new_subject(strategy, "client_proxy", TARGET..("client_proxy_strategy = %q\n"):format(strategy));
end

-- The module's folder once more, where top_tag.lua does nothing. -> the plugin path
local function copy_without_top_tag()
	local copy = assert(os.getenv("TMPDIR"), "run it by tools/with_scratch").."/without_top_tag";
	assert(os.execute(("mkdir -p %s && cp -r mod_client_proxy %s"):format(throwaway.quote(copy), throwaway.quote(copy))));
	throwaway.write_file(copy.."/mod_client_proxy/top_tag.lua", "return { cheapen = function () end };\n");
	return copy;
end

-- The default, but Prosody makes the text of its debug lines in its own way: what the module itself takes.
function subjects.ours_without_top_tag()
	local subject = subjects.ours("short");
	subject.name, subject.plugin_path = "ours_no_top_tag", copy_without_top_tag();
	return subject;
end

-- The default, but nothing is counted.
function subjects.ours_uncounted()
	local subject = subjects.ours("short");
	subject.name, subject.statistics = "ours_uncounted", false;
	return subject;
end

-- (plugin_path) -> the module of 2018, which is in that folder; one like it, if nil
function subjects.of_2018(plugin_path)
	return plugin_path and new_subject("2018", "client_proxy", TARGET, plugin_path)
		or new_subject("2018-like", "naive_proxy", TARGET, BENCH_MODULES);
end

-- (subject, command, has_limits) -> server: the subject's Prosody, started, by way of a command if one is given, and
-- with Prosody's default rate limits if wanted. As in production, nothing is logged for a request; statistics are on,
-- unless the subject's are not. The caller removes it.
local function start_server(subject, command, has_limits)
	local host = 'VirtualHost "some-domain.example"\n';
	local server = prosody.new {
		hosts = (has_limits and LIMITS..host..'modules_enabled = { "limits" }\n' or host)..subject.component;
		plugin_path = subject.plugin_path, log_level = "info", statistics = subject.statistics, run_by = command;
	};
	return server:start();
end

-- A connection of the backend, which the component knows of
local function start_backend(subject, server)
	local backend = service.backend(server, "a");
	if not subject.is_direct then -- where nobody else tells the component of the backend
		backend:send(st.presence({ to = service.proxy, type = "subscribed" }));
		backend:send(st.presence({ to = service.proxy }));
		backend:sync();
	end
	return backend, subject.is_direct and backend.jid or service.proxy;
end

-- (subject, command) -> server, requester, backend (two connections of spec/support/xmpp.lua), the address to ask
function subjects.start(subject, command)
	local server = start_server(subject, command, false);
	local backend, address = start_backend(subject, server);
	return server, service.requester(server), backend, address;
end

-- (subject, count) -> server, requesters (a list of so many connections), backend, the address to ask
-- with Prosody's default rate limits
function subjects.start_limited(subject, count)
	local server = start_server(subject, nil, true);
	local backend, address = start_backend(subject, server);
	local requesters = {};
	for number = 1, count do
		requesters[number] = service.requester(server, "requester-"..number);
	end
	return server, requesters, backend, address;
end

return subjects;
