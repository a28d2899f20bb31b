-- examples/backend.py as it is, against a server whose certificate it has to verify

local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local is_iq = xmpp.is_iq;
local TARGET, PASSWORD = service.target, "some-user";

-- What the other specs do without
local hosts = prosody.usual_hosts:gsub('VirtualHost "some%-domain.example"\n', '%0\tmodules_enabled = { "tls" }\n');

describe("the example's backend", function ()
	local server, certificate, watcher, requester, copies;

	-- Where Prosody looks for the host's certificate by itself
	local function make_certificate()
		certificate = server.dir.."/some-domain.example.crt";
		assert(os.execute(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 "
			.."-subj /CN=some-domain.example -addext subjectAltName=DNS:some-domain.example "
			.."-keyout %s/some-domain.example.key -out %s 2>%s/openssl.log"):format(server.dir, certificate, server.dir)));
	end

	-- A contact of the target, who sees the backends come and go when the component does
	local function make_watcher()
		local target = service.backend(server, "first-login");
		watcher = xmpp.client(server, "other-user", "some-domain.example", "watcher");
		watcher:send(st.presence());
		watcher:send(st.presence({ to = TARGET, type = "subscribe" }));
		target:receive(xmpp.presence_from(watcher.bare, "subscribe"));
		target:send(st.presence({ to = watcher.bare, type = "subscribed" }));
		target:close();
		watcher:receive(xmpp.presence_from(target.jid, "unavailable"));
	end

	-- Debian's Python is the one with slixmpp. The alarm ends one that would not end.
	local function run(jid, environment)
		local command = ("echo $$; exec env PYTHONPATH=spec/support/python PYTHONDONTWRITEBYTECODE=1 XMPP_PORT=%d %s "
			.."perl -e 'alarm 60; exec @ARGV' /usr/bin/python3 examples/backend.py %s 2>&1"):format(server.c2s_port, environment, jid);
		local copy = { output = assert(io.popen(command)) };
		copy.pid = tonumber(copy.output:read());
		copies[copy] = true;
		return copy;
	end

	-- Waits until it has ended by itself, or by a signal. What it printed, and its exit code
	local function wait_for(copy)
		local text = copy.output:read("a");
		local _, _, code = copy.output:close();
		copies[copy] = nil;
		return text, code or 0;
	end

	local function signal(copy, name)
		assert(os.execute(("kill -%s %d"):format(name, copy.pid)));
	end

	-- Runs a copy that may log in, and returns it when the component knows it
	local function start(jid)
		local copy = run(jid, ("SSL_CERT_FILE=%s XMPP_PASSWORD=%s"):format(certificate, PASSWORD));
		copy.jid = watcher:receive(function (stanza)
			return stanza.name == "presence" and stanza.attr.type == nil and stanza.attr.from:sub(1, #TARGET + 1) == TARGET.."/";
		end).attr.from;
		return copy;
	end

	before_each(function ()
		copies = {};
		server = prosody.new { hosts = hosts };
		make_certificate();
		server:start();
		make_watcher();
		requester = service.requester(server);
	end);

	after_each(function ()
		for copy in pairs(copies) do
			signal(copy, "KILL");
			wait_for(copy);
		end
		server:remove();
	end);

	local function ask(id)
		requester:send(st.iq({ type = "get", id = id, to = service.proxy })
			:tag("query", { xmlns = "urn:example:service" }):text_tag("text", "three words <here>"));
	end

	-- How many of `count` answers to ask() each copy has given, by its address
	local function answers(count)
		local shares, ids = {}, {};
		for _ = 1, count do
			local answer = requester:receive(is_iq);
			assert.equal("result", answer.attr.type);
			assert.equal(service.proxy, answer.attr.from);
			assert.equal("3", answer:find("{urn:example:service}query/words#"));
			assert.is_nil(ids[answer.attr.id]);
			ids[answer.attr.id] = true;
			local jid = TARGET.."/"..answer:find("{urn:example:service}query/backend#");
			shares[jid] = (shares[jid] or 0) + 1;
		end
		return shares;
	end

	it("runs in several copies, which share the requests and leave without losing one", function ()
		local first, second = start(TARGET.."/first"), start(TARGET);
		assert.equal(TARGET.."/first", first.jid);
		assert.not_equal(first.jid, second.jid);

		for number = 1, 40 do
			ask("share-"..number);
		end
		local shares = answers(40);
		assert.same({ [first.jid] = 40 - shares[second.jid], [second.jid] = 40 - shares[first.jid] }, shares);

		-- it has requests that it has not even read
		signal(second, "STOP");
		for number = 1, 40 do
			ask("stopped-"..number);
		end
		requester:sync();
		signal(second, "TERM");
		signal(second, "CONT");
		answers(40);
		watcher:receive(xmpp.presence_from(second.jid, "unavailable"));
		local text, code = wait_for(second);
		assert.equal(0, code, text);

		for number = 1, 40 do
			ask("left-"..number);
		end
		assert.same({ [first.jid] = 40 }, answers(40));
	end);

	it("answers what it does not know with an error", function ()
		start(TARGET);
		for id, payload in pairs { namespace = "urn:example:other", set = "urn:example:service" } do
			local answer = requester:request(st.iq({ type = id == "set" and "set" or "get", id = id, to = service.proxy })
				:tag("query", { xmlns = payload }));
			assert.same({ "feature-not-implemented", "cancel" }, { service.error_of(answer) });
			assert.equal(service.proxy, answer.attr.from);
		end
	end);

	it("ends when the server goes", function ()
		local copy = start(TARGET);
		server:stop();
		wait_for(copy);
	end);

	it("is no backend with a wrong password, or with a certificate that it cannot trust", function ()
		for name, environment in pairs {
			wrong = ("SSL_CERT_FILE=%s XMPP_PASSWORD=wrong"):format(certificate);
			untrusted = "SSL_CERT_FILE=/dev/null XMPP_PASSWORD="..PASSWORD;
		} do
			wait_for(run(TARGET.."/"..name, environment));
			assert.equal("service-unavailable", (service.error_of(requester:request(service.request(name)))));
		end
	end);
end);
