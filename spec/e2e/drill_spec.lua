-- The failure drill of doc/operation.markdown: what parts do when they die in ways that no other spec is about, what
-- users see of it and for how long, what the operator is told, and what becomes of his doing what is advised there.

local admin_shell = require "spec.support.admin_shell";
local new_played_target = require "spec.support.played_target".new;
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";
local gettime, sleep = require "socket".gettime, require "socket".sleep;
local socket = require "socket";
local st = require "util.stanza";

local PROXY, TARGET = service.proxy, service.target;
local is_iq, is_message, request = xmpp.is_iq, xmpp.is_message, service.request;
local quote, read_file, write_file = throwaway.quote, throwaway.read_file, throwaway.write_file;
local usual_hosts = require "spec.support.prosody".usual_hosts;

local LATE = 10; -- seconds that all of it may take longer on a machine that is busy

local function file_name(host)
	return (host:gsub("%.", "%%2e"));
end

-- What Prosody writes goes into a file of that name first (util.datamanager). If that is a folder, writing fails each time,
-- as it does on a full disk, and what was there before can be read.
local function forbid_writing(path)
	assert(os.execute("mkdir -p "..quote(path.."~")));
end

local function allow_writing(path)
	assert(os.execute("rmdir "..quote(path.."~")));
end

-- (server, ...): each of these stands in a line of the log at that level
local function assert_logged(server, level, ...)
	local log = server:log();
	for _, words in ipairs { ... } do
		local position, is_there = 1, false;
		repeat
			local from, to = log:find(words, position, true);
			local line = from and log:sub(1, from):match("[^\n]*$") or "";
			is_there, position = is_there or line:find("\t"..level.."\t", 1, true) ~= nil, to and to + 1;
		until not position;
		assert.is_true(is_there, words);
	end
end

local function is_request(stanza)
	return stanza.name == "iq" and stanza:get_child("query", "urn:example:service") ~= nil;
end

local function reload(server, proxy)
	server:ctl("shell", "module", "reload", "client_proxy", proxy or PROXY);
end

describe("a backend", function ()
	local server, requester;

	before_each(function ()
		server = new_prosody { hosts = usual_hosts.."client_proxy_request_timeout = 1\nclient_proxy_strategy = 'round_robin'\n" }:start();
		requester = service.requester(server);
	end);

	after_each(function ()
		server:remove();
	end);

	it("that hangs costs what it is given until its first request has timed out and a second has passed, and nothing after", function ()
		service.backend(server, "a"); -- which reads nothing from now on, and leaves its connection open
		local b = service.backend(server, "b");
		local sent, errors, began = 0, 0, gettime();
		repeat
			sent = sent + 2;
			for number = sent - 1, sent do
				requester:send(request("asking-"..number));
			end
			requester:sync();
			service.answer_all(b);
			for _, answer in ipairs(requester:sync()) do
				errors = errors + (answer.attr.type == "error" and 1 or 0);
			end
			requester.received = {};
			sleep(0.02); -- some 50 requests a second
		until server:log():find('warn\tResource "a" of the target does not answer a ping');
		assert.is_true(gettime() - began < 1 + 1 + LATE);
		assert.is_true(errors > 0);
		assert.truthy(server:client_proxy("status", PROXY):find("\na +| suspended"));
		for number = 1, 20 do
			requester:send(request("after-"..number));
			requester:sync();
		end
		service.answer_all(b);
		local after = 0;
		while after < 20 do
			local answer = requester:receive(is_iq);
			if answer.attr.id:find("^after") then
				assert.equal("result", answer.attr.type);
				after = after + 1;
			end
		end
	end);

	it("whose machine has gone without a word is gone when its next session comes: gets go to another, sets are refused", function ()
		local function get_on_as(is_resumable)
			local a = service.backend(server, "a");
			if is_resumable then
				a:enable_resumption();
			end
			requester:send(request("get"));
			requester:send(request("set", nil, "set"));
			a:receive(is_iq);
			a:receive(is_iq); -- and nothing more, though its connection stays open
			local b = service.backend(server, "b");
			local successor = service.backend(server, "a");
			b:send(st.reply(b:receive(is_request)));
			local outcomes = {};
			for _ = 1, 2 do
				local answer = requester:receive(is_iq);
				outcomes[answer.attr.id] = service.error_of(answer) or answer.attr.type;
			end
			assert.same({ get = "result", set = "service-unavailable" }, outcomes);
			b:close();
			requester:send(request("next"));
			successor:send(st.reply(successor:receive(is_request)));
			assert.equal("result", requester:receive(is_iq).attr.type);
			successor:close();
		end
		get_on_as(false);
		get_on_as(true);
	end);
end);

describe("a Prosody with the component", function ()
	local server;

	after_each(function ()
		server:remove();
	end);

	it("that hangs answers all that has timed out meanwhile once when it goes on, and has its backends", function ()
		server = new_prosody { hosts = usual_hosts.."client_proxy_request_timeout = 1\n" }:start();
		local requester, a = service.requester(server), service.backend(server, "a");
		local held = {};
		for number = 1, 10 do
			requester:send(request("before-"..number, nil, number % 2 == 0 and "get" or "set"));
			held[number] = a:receive(is_iq);
		end
		server:signal "STOP";
		for _, stanza in ipairs(held) do
			a:send(st.reply(stanza));
		end
		requester:send(request "meanwhile");
		sleep(1.2); -- until those have timed out
		server:signal "CONT";
		a:send(st.reply(a:receive(is_request)));
		local seen = {};
		for _ = 1, 11 do
			local answer = requester:receive(is_iq);
			assert.is_nil(seen[answer.attr.id]);
			seen[answer.attr.id] = true;
			local outcome = service.error_of(answer) or answer.attr.type;
			assert.is_true(outcome == "result" or answer.attr.id ~= "meanwhile" and outcome == "remote-server-timeout");
		end
		assert.same({}, requester:sync());
		assert.truthy(server:client_proxy("status", PROXY):find("\na +| ready"));
	end);
end);

describe("between a Prosody with the component and the target's server", function ()
	local server, played, account, requester;

	local hosts = [[
network_settings = { connect_timeout = 2 }
VirtualHost "domain.example"
Component "proxy.domain.example" "client_proxy"
	modules_enabled = { "ping" }
	target_address = "some-user@some-domain.example"
]];

	before_each(function ()
		server, played, account = new_played_target { hosts = hosts, accounts = { "user@domain.example" } };
	end);

	after_each(function ()
		server:remove();
		played:remove();
	end);

	local function start(options)
		server:configure(hosts..(options or ""));
		server:start();
		requester = xmpp.client(server, "user", "domain.example", "abc");
	end

	-- The service is up, with this resource.
	local function start_with(name, options)
		account:add(name);
		start(options);
		played:receive(function (stanza) return stanza.attr.type == "probe"; end);
		played:sync();
		played.received = {};
	end

	local function status()
		return server:client_proxy("status", PROXY);
	end

	local function await_status(words, timeout)
		played:pump(function () return status():find(words, 1, true); end, timeout);
	end

	-- -> "result", or the condition of the error
	local function ask(id, type)
		local answer = played:request_at(requester, request(id, nil, type));
		return service.error_of(answer) or answer.attr.type;
	end

	local function await_service(timeout)
		local count = 0;
		played:pump(function ()
			count = count + 1;
			return ask("again-"..count) == "result";
		end, timeout);
	end

	-- It is as if no packet arrived any more: streams bring nothing, and nobody answers to what connects, as so many others
	-- wait for that already. -> those others
	local function lose_all_packets()
		played:hang();
		local others = {};
		repeat
			local other = socket.tcp();
			other:settimeout(0.1);
			table.insert(others, other);
		until not other:connect("127.0.0.1", played.port);
		return others;
	end

	it("all packets are lost: time-outs, then errors at once, until they arrive again", function ()
		start_with("a", "client_proxy_request_timeout = 1");
		local began, others = gettime(), lose_all_packets();
		assert.equal("remote-server-timeout", ask "first");
		await_status(TARGET.." cannot be reached", 1 + 1 + 3 + 2 + LATE);
		assert.equal("service-unavailable", ask "second");
		assert.is_true(gettime() - began >= 3);
		assert_logged(server, "warn", "Nothing comes from the server of "..TARGET, TARGET.." cannot be reached");
		for _, other in ipairs(others) do
			other:close();
		end
		played:go_on();
		await_service(2 + 2 + LATE);
		await_status "requests are served";
	end);

	it("the stream is not authenticated any more, as a certificate has run out: errors, of which the log says why", function ()
		start_with("a", "client_proxy_request_timeout = 1");
		function played.on_key() end -- so that it is not
		played:await_their_stream():close();
		assert.equal("remote-server-timeout", ask "first");
		await_status("The stream to the server of "..TARGET.." is not authenticated", 3 + LATE);
		assert_logged(server, "warn", "The stream to the server of "..TARGET.." is not authenticated");
		assert.equal("service-unavailable", ask "second");
		played.on_key = nil;
		await_service(2 + LATE);
		await_status "requests are served";
	end);

	it("there is no such server in the DNS: errors at once, and it is said so", function ()
		server:configure((hosts:gsub("some%-domain%.example", "nowhere.invalid")));
		server:start();
		requester = xmpp.client(server, "user", "domain.example", "abc");
		await_status("some-user@nowhere.invalid cannot be reached");
		assert.equal("service-unavailable", ask "first");
	end);

	it("what cannot be reached is asked at once when the operator says resync", function ()
		played:refuse();
		account:add "a";
		start();
		played:pump(function () return select(2, server:log():gsub("s2s connection attempt failed", "")) >= 3; end);
		played:listen(); -- the next attempt is four seconds away
		server:client_proxy("resync", PROXY);
		played:receive(xmpp.presence_from(PROXY, "subscribe"), 3);
		await_service(LATE);
	end);

	it("a Prosody that has stood still itself does not take the server for silent", function ()
		start_with "a";
		await_status "requests are served";
		played:pump_for(1.5); -- then all has been asked that a start asks
		played.received = {};
		local resource = account.resources.a;
		account.is_approving, account.answers_probes, resource.answers_pings, played.answers_pings = false, false, false, false;
		local shell = admin_shell.new(server);
		server:client_proxy("resync", PROXY);
		local ping = played:receive(function (stanza) return stanza.attr.to == "some-domain.example"; end);
		shell:start("> require 'socket'.sleep(3.5)", function () end); -- as on a disk that does not answer
		sleep(0.3);
		played:send(st.reply(ping));
		requester:sync();
		requester:sync();
		assert.falsy(server:log():find("othing comes from", 1, true));
		assert.equal(1, played.accepted);
	end);
end);

describe("the storage of keys", function ()
	local server, requester, backend;

	-- As an address has to outlive a restart to show whether its key has.
	local hosts = usual_hosts.."client_proxy_address_format = 'sealed'\n";

	local function log_in()
		requester, backend = service.requester(server), service.backend(server, "a");
	end

	before_each(function ()
		server = new_prosody { hosts = hosts }:start();
		log_in();
	end);

	after_each(function ()
		server:remove();
	end);

	local function path()
		return ("%s/data/%s/client_proxy.dat"):format(server.dir, file_name(PROXY));
	end

	local function restart(change)
		server:stop();
		change();
		server:start();
		log_in();
	end

	-- The address by which the backend sees the requester
	local function address()
		requester:send(request "seen");
		local received = backend:receive(is_request);
		backend:send(st.reply(received));
		assert.equal("result", requester:receive(is_iq).attr.type);
		return received.attr.from;
	end

	-- Whether the backend reaches the requester by that address
	local function reaches(address_of_before)
		backend:send(st.message({ to = address_of_before, id = "hello" }, "hello"));
		backend:sync();
		local bounced = backend:take(is_message);
		assert.equal(bounced and "item-not-found", bounced and service.error_of(bounced));
		return not bounced and requester:receive(is_message).attr.id == "hello";
	end

	-- So that there is a new one from the next start or reload on
	local function let_the_key_reach_its_lifetime()
		write_file(path(), (read_file(path()):gsub('(%["created"%] = )%d+', "%1"..os.time() - 31 * 24 * 60 * 60)));
	end

	it("is damaged or cannot be read at a start: errors at once, until it has been put back and the module is loaded", function ()
		local before, backup = address(), read_file(path());
		for what, damage in pairs {
			["are damaged"] = function () write_file(path(), ""); end;
			["cannot be read from Prosody's storage"] = function ()
				os.remove(path());
				assert(os.execute("mkdir "..quote(path())));
			end;
		} do
			restart(damage);
			assert.equal("service-unavailable", (service.error_of(requester:request(request "refused"))));
			assert_logged(server, "error", "the keys of "..PROXY.." ", what);
			assert.truthy(server:client_proxy("status"):find("It could not be loaded: the keys of "..PROXY, 1, true));
			assert(os.execute("rm -r "..quote(path())));
			write_file(path(), backup);
			server:ctl("shell", "module", "load", "client_proxy", PROXY);
			backend:sync();
			assert.equal(before, address());
		end
	end);

	it("loses or damages them meanwhile: nobody notices, a reload stores those in use again", function ()
		local before = address();
		for _, damage in ipairs { function () os.remove(path()); end, function () write_file(path(), "return {"); end } do
			damage();
			assert.equal(before, address());
			reload(server);
			assert.equal(before, address());
			assert_logged(server, "warn", "The keys that are in use are written to Prosody's storage again");
		end
		restart(function () end);
		assert.equal(before, address());
	end);

	it("takes no new key, as the disk is full: all is served, a restart changes addresses unless there has been room", function ()
		local first = address();
		let_the_key_reach_its_lifetime();
		forbid_writing(path());
		reload(server);
		local second = address();
		assert.is_true(first ~= second and reaches(first));
		assert_logged(server, "error", "The new key cannot be written to Prosody's storage");
		allow_writing(path());
		reload(server); -- which writes it, as does the next attempt, within an hour
		restart(function () end);
		assert.equal(second, address());
		assert.is_true(reaches(first));
	end);

	it("has lost them at a start: new ones are made, and addresses of before are nobody's", function ()
		local before = address();
		assert.equal(1, select(2, server:log():gsub("There is no key in Prosody's storage", "")));
		restart(function () os.remove(path()); end);
		assert.not_equal(before, address());
		assert.is_false(reaches(before));
		assert.equal(2, select(2, server:log():gsub("There is no key in Prosody's storage", "")));
	end);

	it("is put back from a backup: addresses made since with a newer key are nobody's, older ones are as before", function ()
		local old, backup = address(), read_file(path());
		restart(let_the_key_reach_its_lifetime);
		local new = address();
		assert.is_true(old ~= new and reaches(old));
		restart(function () write_file(path(), backup); end);
		assert.equal(old, address());
		assert.is_false(reaches(new));
	end);
end);

describe("the storage of watchers", function ()
	local server, users;
	local NAMES = { "user", "other-user" };

	-- What the account's roster says of the service. From then on, it is told of changes.
	local function subscription(name)
		local answer = users[name]:request(st.iq({ type = "get", id = "roster" }):tag("query", { xmlns = "jabber:iq:roster" }));
		for item in answer:get_child("query", "jabber:iq:roster"):childtags("item") do
			if item.attr.jid == PROXY then
				return item.attr.subscription;
			end
		end
	end

	local function log_in()
		users = {};
		for _, name in ipairs(NAMES) do
			users[name] = xmpp.client(server, name, "some-domain.example", "abc");
			subscription(name);
			users[name]:send(st.presence());
			users[name]:sync();
		end
		service.backend(server, "a");
	end

	before_each(function ()
		server = new_prosody():start();
		log_in();
	end);

	after_each(function ()
		server:remove();
	end);

	local function folder()
		return ("%s/data/%s/client_proxy_watchers"):format(server.dir, file_name(PROXY));
	end

	local function shards(call)
		for number = 1, 64 do
			call(folder().."/"..number..".dat");
		end
	end

	local function restart(change)
		server:stop();
		change();
		server:start();
		log_in();
	end

	local function subscribe(name)
		users[name]:send(st.presence { type = "subscribe", to = PROXY });
		users[name]:receive(xmpp.presence_from(PROXY, "subscribed"));
	end

	local function unsubscribe(name)
		users[name]:send(st.presence { type = "unsubscribe", to = PROXY });
		users[name]:sync();
		users[name].received = {};
	end

	local function sees_the_service(name)
		users[name]:receive(xmpp.presence_from(PROXY));
	end

	local function is_told_that_it_watches_no_more(name)
		users[name]:receive(xmpp.presence_from(PROXY, "unsubscribed"));
		assert.equal("none", subscription(name));
	end

	local function failing()
		return server:metrics()[("prosody_mod_client_proxy__watchers_failing{host=%q}"):format(PROXY)];
	end

	it("takes nothing, as the disk is full: all is as usual, after a restart those who came last are told to subscribe anew", function ()
		subscribe "user";
		reload(server); -- which writes it
		shards(forbid_writing);
		subscribe "other-user";
		sees_the_service "other-user";
		reload(server);
		assert_logged(server, "error", "Who watches the service cannot be written to Prosody's storage");
		assert.equal(1, failing());
		restart(function () end);
		sees_the_service "user";
		is_told_that_it_watches_no_more "other-user";
		subscribe "other-user";
		shards(allow_writing);
		reload(server); -- which writes it, as does the next attempt, within a minute
		assert.equal(0, failing());
		restart(function () end);
		sees_the_service "other-user";
	end);

	it("cannot be read: what is in there is left alone, these are told to subscribe anew, unless it is put back before", function ()
		subscribe "user";
		server:stop();
		local mine;
		shards(function (path)
			local file = io.open(path);
			mine = file and path or mine;
			if file then file:close(); end
		end);
		local backup = read_file(mine);
		write_file(mine, "return {");
		server:start();
		assert_logged(server, "warn", "Not all that watch the service are known: 1 of the 64 entries");
		assert.equal(1, failing());
		restart(function () write_file(mine, backup); end);
		sees_the_service "user";
		assert.equal(0, failing());
		restart(function () write_file(mine, "return {"); end);
		is_told_that_it_watches_no_more "user";
	end);

	it("is put back from a backup: who has come since is told to subscribe anew, who has gone sees the service again", function ()
		subscribe "user";
		server:stop();
		assert(os.execute(("cp -r %s %s"):format(quote(folder()), quote(server.dir.."/backup"))));
		server:start();
		log_in();
		unsubscribe "user";
		subscribe "other-user";
		restart(function ()
			assert(os.execute(("rm -r %s && cp -r %s %s"):format(quote(folder()), quote(server.dir.."/backup"), quote(folder()))));
		end);
		is_told_that_it_watches_no_more "other-user";
		sees_the_service "user";
		unsubscribe "user"; -- once more
		assert.truthy(server:client_proxy("status", PROXY):find("\nWatchers: +0\n"));
	end);
end);

describe("the storage of the target's roster", function ()
	it("cannot be written: errors at once, until it can be and a backend comes or the operator says resync", function ()
		local server = new_prosody();
		finally(function () server:remove(); end);
		local path = server.dir.."/data/some%2ddomain%2eexample/roster/some%2duser.dat";
		forbid_writing(path);
		server:start();
		local requester, backend = service.requester(server), service.backend(server, "a");
		local answer = requester:request(request "refused");
		assert.equal("service-unavailable", (service.error_of(answer)));
		local words = "The roster of "..TARGET.." cannot be given "..PROXY;
		assert_logged(server, "error", words);
		assert.truthy(server:client_proxy("status", PROXY):find(words, 1, true));
		allow_writing(path);
		server:client_proxy("resync", PROXY);
		backend:sync();
		requester:send(request "served");
		backend:send(st.reply(backend:receive(is_request)));
		assert.equal("result", requester:receive(is_iq).attr.type);
	end);
end);
