-- The examples of a backend, in Python and in Node, of a requester and of a unit for systemd, against a server whose
-- certificate they have to verify

local examples = require "spec.support.examples";
local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local is_iq = xmpp.is_iq;
local PROXY, TARGET, PASSWORD = service.proxy, service.target, examples.password;
local RIGHT_PASSWORD = " XMPP_PASSWORD="..PASSWORD;

describe("the example", function ()
	local scene, server;

	-- (options): see examples.new
	local function set(options)
		scene = examples.new(options);
		server = scene.server;
	end

	after_each(function ()
		scene:remove();
	end);

	-- Waits until it ends by itself, and asserts that it tells why in one line.
	local function assert_ends(copy, expected_code, ...)
		local text, code = scene:wait_for(copy);
		assert.equal(expected_code, code, text);
		assert.truthy(text:match("^[^\n]+\n$"), text);
		for _, part in ipairs { ... } do
			assert.truthy(text:find(part, 1, true), text);
		end
	end

	-- Reads lines until one says that the copy is not connected, and returns the seconds that it waits, and why.
	local function await_pause(copy)
		for line in copy.output:lines() do
			local reason, seconds = line:match("^backend%.%w+: not connected %((.*)%), trying again in ([%d.]+) s$");
			if reason then
				return tonumber(seconds), reason;
			end
			error(line);
		end
		error("it has ended");
	end

	-- What differs: backend() -> a command that runs it; slow(), impatient() -> likewise, see spec/support;
	-- trust() -> environment, arguments with which it trusts the certificate
	local LANGUAGES = {
		Python = {
			backend = function () return "/usr/bin/python3 examples/backend.py "; end;
			impatient = function () return "/usr/bin/python3 spec/support/python/impatient.py examples/backend.py ", ""; end;
			slow = function () return "/usr/bin/python3 spec/support/python/slow.py "; end;
			trust = function () return "", "--ca "..scene.certificate.." "; end;
			unknown_request = "feature-not-implemented";
		};
		Node = {
			backend = function () return "node "..scene:node_program "backend.js".." "; end;
			impatient = function () return "node "..scene:node_program "backend.js".." ", " IMPATIENT=1"; end;
			slow = function () return "node "..scene:node_program "slow.js".." "; end;
			trust = function () return " NODE_EXTRA_CA_CERTS="..scene.certificate, ""; end;
			unknown_request = "service-unavailable";
		};
	};

	for _, name in ipairs { "Python", "Node" } do
		local language = LANGUAGES[name];
		describe("of a backend in "..name, function ()
			-- (jid, how): a copy that may log in, how it is run (language.backend if nil)
			local function start(jid, how)
				local command, more = (how or language.backend)();
				local environment, arguments = language.trust();
				return scene:start(command..arguments..jid, environment..RIGHT_PASSWORD..(more or ""));
			end

			-- (id, text) sends a request; the text has three words
			local function ask(id, text)
				local request = st.iq({ type = "get", id = id, to = PROXY })
					:tag("query", { xmlns = "urn:example:service" }):text_tag("text", text or "three words <here>");
				if text then
					scene.requester:send_large(request);
				else
					scene.requester:send(request);
				end
			end

			-- How many of `count` answers to ask() each copy has given, by its address
			local function answers(count)
				local shares, ids = {}, {};
				for _ = 1, count do
					local answer = scene.requester:receive(is_iq);
					assert.equal("result", answer.attr.type, tostring(answer));
					assert.equal(PROXY, answer.attr.from);
					assert.equal("3", answer:find("{urn:example:service}query/words#"));
					assert.is_nil(ids[answer.attr.id]);
					ids[answer.attr.id] = true;
					local jid = TARGET.."/"..answer:find("{urn:example:service}query/backend#");
					shares[jid] = (shares[jid] or 0) + 1;
				end
				return shares;
			end

			it("runs in several copies, which share the requests and leave without losing one", function ()
				set();
				local first, second = start(TARGET.."/first"), start(TARGET);
				assert.equal(TARGET.."/first", first.jid);
				assert.not_equal(first.jid, second.jid);

				for number = 1, 40 do
					ask("share-"..number);
				end
				local shares = answers(40);
				assert.same({ [first.jid] = 40 - shares[second.jid], [second.jid] = 40 - shares[first.jid] }, shares);

				-- it has requests that it has not even read, and answers them itself
				scene:signal(second, "STOP");
				for number = 1, 40 do
					ask("stopped-"..number);
				end
				scene.requester:sync();
				scene:signal(second, "TERM");
				scene:signal(second, "CONT");
				assert.is_true(answers(40)[second.jid] > 0);
				scene.watcher:receive(xmpp.presence_from(second.jid, "unavailable"));
				assert.same({ "", 0 }, { scene:wait_for(second) });

				for number = 1, 40 do
					ask("left-"..number);
				end
				assert.same({ [first.jid] = 40 }, answers(40));

				-- what it does not know
				for id, payload in pairs { namespace = "urn:example:other", set = "urn:example:service" } do
					local answer = scene.requester:request(st.iq({ type = id == "set" and "set" or "get", id = id, to = PROXY })
						:tag("query", { xmlns = payload }));
					assert.same({ language.unknown_request, "cancel" }, { service.error_of(answer) });
				end

				-- requests that it has not got when it leaves, as they are more than it reads at once
				scene:signal(first, "STOP");
				local word = ("long"):rep(6000);
				for number = 1, 40 do
					ask("late-"..number, word.." "..word.." "..word);
				end
				scene.requester:sync();
				scene:signal(first, "TERM");
				scene:signal(first, "CONT");
				assert.same({ [first.jid] = 40 }, answers(40));
				assert.same({ "", 0 }, { scene:wait_for(first) });
			end);

			it("ends when a request that takes its time is answered", function ()
				set();
				local copy = start(TARGET, language.slow);
				scene.requester:send(st.iq({ type = "set", id = "slow", to = PROXY }):tag("query", { xmlns = "urn:example:service" }));
				assert.equal("asked", copy.output:read());
				scene:signal(copy, "TERM");
				assert.equal("-1", scene.watcher:receive(xmpp.presence_from(copy.jid)):get_child_text("priority"));
				scene:signal(copy, "USR2");
				assert.equal("result", scene.requester:receive(is_iq).attr.type);
				scene.watcher:receive(xmpp.presence_from(copy.jid, "unavailable"));
				assert.same({ "", 0 }, { scene:wait_for(copy) });
			end);

			it("connects again when the server comes back, and can be ended meanwhile", function ()
				set();
				local first, second, third = start(TARGET.."/first"), start(TARGET.."/second"), start(TARGET.."/third");
				server:stop();
				local pause, reason = await_pause(first);
				assert.truthy(reason:find("system-shutdown", 1, true) or reason:find("ended", 1, true), reason);
				assert.is_true(pause <= 1 and await_pause(first) >= 1); -- the second one is up to twice as long
				await_pause(third);
				scene:signal(third, "TERM");
				assert.equal(0, select(2, scene:wait_for(third)));

				server:start();
				scene:connect();
				local back = { [scene:await_backend()] = true, [scene:await_backend()] = true };
				assert.same({ [first.jid] = true, [second.jid] = true }, back);
				for number = 1, 40 do
					ask("back-"..number);
				end
				local shares = answers(40);
				assert.is_true(shares[first.jid] > 0 and shares[second.jid] > 0);
			end);

			it("connects again to a server that had stopped to answer", function ()
				set();
				local copy = start(TARGET.."/first", language.impatient);
				server:signal("STOP");
				local _, reason = await_pause(copy);
				assert.equal("the server does not answer", reason);
				server:signal("CONT");
				scene.watcher:receive(xmpp.presence_from(copy.jid, "unavailable"));
				assert.equal(copy.jid, scene:await_backend());
			end);

			it("ends, and says why, when it may not log in", function ()
				set();
				local environment, arguments = language.trust();
				local backend = language.backend();
				assert_ends(scene:run(backend..arguments..TARGET, environment.." XMPP_PASSWORD=wrong"), 2, TARGET, "not-authorized");
				assert_ends(scene:run(backend..TARGET, RIGHT_PASSWORD), 1, "the certificate of some-domain.example cannot be trusted: self");

				local first = start(TARGET.."/first");
				local second = scene:run(backend..arguments..TARGET.."/first", environment..RIGHT_PASSWORD);
				assert_ends(first, 2, TARGET.."/first has logged in elsewhere");
				assert.equal(TARGET.."/first", scene:await_backend());
				scene:stop(second);
			end);

			it("does not log in without encryption", function ()
				set { hosts = prosody.usual_hosts };
				local environment, arguments = language.trust();
				local copy = scene:run(language.backend()..arguments..TARGET, environment..RIGHT_PASSWORD);
				local _, reason = await_pause(copy);
				assert.equal("the server has no safe way to log in", reason);
			end);

			it("ends, and says why, when it is called wrongly", function ()
				set();
				local backend, file = language.backend(), server.dir.."/no-such-file";
				assert_ends(scene:run(backend..TARGET, ""), 2, "there is no password: set XMPP_PASSWORD, or name a file with --password-file");
				assert_ends(scene:run(backend..TARGET.." --password-file "..file, ""), 2, "cannot read "..file);
				assert_ends(scene:run(backend.."some-domain.example", RIGHT_PASSWORD), 2, '"some-domain.example" is no account');
				assert_ends(scene:run(backend.."some-user@", RIGHT_PASSWORD), 2, '"some-user@" is no ');
				assert_ends(scene:run(backend.."--no-such-option "..TARGET, RIGHT_PASSWORD), 2, "--no-such-option");
				assert_ends(scene:run(backend, RIGHT_PASSWORD), 2, "JID");
			end);
		end);
	end

	describe("of a requester", function ()
		-- (words, environment, more) -> copy, which asks as `user`
		local function ask(words, environment, more)
			return scene:run(("/usr/bin/python3 examples/request.py --ca %s %s user@some-domain.example %s")
				:format(scene.certificate, more or "", words), environment or "XMPP_PASSWORD=user");
		end

		it("prints an answer, or in one line why there is none", function ()
			set();
			local environment, arguments = LANGUAGES.Python.trust();
			assert_ends(ask(PROXY.." three words here"), 1, PROXY.." has answered with an error: service-unavailable");
			local backend = scene:start(LANGUAGES.Python.backend()..arguments..TARGET.."/first", environment..RIGHT_PASSWORD);
			assert.same({ "Words: 3, counted by first\n", 0 }, { scene:wait_for(ask(PROXY.." three words here")) });

			assert_ends(ask(PROXY.." words", nil, "--no-such-option"), 2, "--no-such-option");
			assert_ends(ask("nowhere.example words"), 1, "nowhere.example has answered with an error: ");
			assert_ends(ask(PROXY.." words", "XMPP_PASSWORD=wrong"), 2, "not-authorized");
			assert_ends(ask("@ words"), 2, '"@" is no address');
			assert_ends(ask(PROXY), 2, "WORD");
			scene:stop(backend);
			server:stop();
			assert_ends(ask(PROXY.." words"), 1, "not connected: ");
		end);
	end);

	describe("of a unit for systemd", function ()
		local UNIT = "examples/client-proxy-backend@.service";
		-- What systemd 254 has brought, and older ones say that they ignore
		local NEW = { ["RestartSteps"] = true, ["RestartMaxDelaySec"] = true };

		it("is what systemd expects", function ()
			set();
			local instance = server.dir.."/client-proxy-backend@first.service";
			assert(os.execute(("cp %s %s"):format(UNIT, instance)));
			local version = tonumber(throwaway.read_command("systemd-analyze --version"):match("^systemd (%d+)"));
			local output, code = throwaway.read_command("systemd-analyze verify --man=no "..instance.." 2>&1");
			assert.equal(0, code, output);
			for line in output:gmatch("[^\n]+") do
				assert.is_true(version < 254 and NEW[line:match("Unknown key '(%w+)'")] or false, line);
			end
		end);

		it("runs a copy", function ()
			set();
			local unit = throwaway.read_file(UNIT);
			assert.truthy(unit:find("\nRestartPreventExitStatus=2\n", 1, true));
			throwaway.write_file(server.dir.."/password", PASSWORD.."\n");
			local values = { ["%d"] = server.dir, ["%i"] = "first" };
			local command = unit:match("\nExecStart=([^\n]+)"):gsub("%%%a", values):gsub("/usr/local/lib/client%-proxy%-backend", "examples");
			local run = "sh -c "..throwaway.quote("exec "..command);
			local copy = scene:start(run, ("BACKEND_OPTIONS='--ca %s' XMPP_ADDRESS=%s"):format(scene.certificate, TARGET));
			assert.equal(TARGET.."/first", copy.jid);
			scene:stop(copy);
		end);
	end);
end);
