-- The Debian package: what make deb builds, and what becomes of it and of Jitsi Meet's copy in a Debian of its own

local copy_checkout = require "spec.support.checkout".copy;
local new_debian = require "spec.support.debian".new;
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";

local read_command, write_file = throwaway.read_command, throwaway.write_file;

local NAME = "prosody-mod-client-proxy";
local VERSION = dofile("mod_client_proxy/version.lua");
local NEXT_VERSION = "9.9";
local FOLDER = "/usr/lib/prosody/modules/mod_client_proxy";
local MODULE = FOLDER.."/mod_client_proxy.lua";
local OTHER = "other";
local JITSI = "jitsi-meet-prosody";
local JITSIS = "/usr/share/jitsi-meet/prosody-plugins/mod_client_proxy.lua";
local ASIDE = JITSIS..".distrib";

local STEPS = 150; -- of chance

-- (command, ...) -> output; fails if the command does
local function run(command, ...)
	local output, code = read_command("exec 2>&1; "..command:format(...));
	return code == 0 and output:gsub("\n$", "") or error(output, 2);
end

describe("the Debian package", function ()
	local scratch, package, next_package, jitsi, next_jitsi;

	-- (name, version) -> path of a package of that version, built by Debian's own tools in a copy of the checkout
	local function build(name, version)
		local folder = scratch.."/"..name;
		copy_checkout(folder.."/checkout");
		run([[cd %s/checkout && sed -i 's/^return .*/return "%s";/' mod_client_proxy/version.lua && sed -i '1s/(.*)/(%s)/' debian/changelog &&
			umask 077 && TZ=Asia/Tokyo LC_ALL=C dpkg-buildpackage --build=binary --no-sign]], folder, version, version);
		return run("echo %s/%s_%s_*.deb", folder, NAME, version);
	end

	-- (version) -> path of a stand-in for the package that has Jitsi Meet's modules
	local function make_jitsi(version)
		local folder = scratch.."/jitsi-"..version;
		run("mkdir -p %s/DEBIAN %s$(dirname %s)", folder, folder, JITSIS);
		write_file(folder..JITSIS, ("module:log('info', \"Jitsi's module %s\")"):format(version));
		write_file(folder.."/DEBIAN/control", ("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: spec <spec@localhost>\n"
			.."Description: stand-in\n"):format(JITSI, version));
		run("dpkg-deb --root-owner-group --build %s", folder);
		return folder..".deb";
	end

	-- (name, change) -> path of the next version of the package, with a change: a command that is run where it lies unpacked
	local function change_package(name, change)
		local folder = scratch.."/"..name;
		run("dpkg-deb --raw-extract %s %s && cd %s && %s && dpkg-deb --build . %s.deb", next_package, folder, folder, change, folder);
		return folder..".deb";
	end

	-- (script) -> a change: that script of the maintainer fails
	local function failing(script)
		return ("printf '#!/bin/sh\\nexit 1\\n' >DEBIAN/%s && chmod 755 DEBIAN/%s"):format(script, script);
	end

	setup(function ()
		scratch = run "mktemp -d";
		package = run "make --silent deb":match("[^\n]+$");
		next_package = build("next", NEXT_VERSION);
		jitsi, next_jitsi = make_jitsi "1.0", make_jitsi "2.0";
	end);

	teardown(function ()
		run("rm -r %s", scratch);
	end);

	describe("as it is built", function ()
		local function field(name)
			return run("dpkg-deb --field %s %s", package, name);
		end

		it("has the module's version, and depends on what that needs", function ()
			assert.equal(VERSION, field "Version");
			local dependencies = ", "..field "Depends"..",";
			for _, dependency in ipairs { "prosody %(>= 0%.12%)", "lua5%.4", "libsodium%d+ %(.-%)", "libc6 %(.-%)" } do
				assert.truthy(dependencies:find(", "..dependency..","), dependencies);
			end
		end);

		it("is not built if its changelog is about another version", function ()
			copy_checkout(scratch.."/other");
			local output, code = read_command(("cd %s/other && sed -i '1s/(.*)/(9.8)/' debian/changelog && debian/rules build 2>&1")
				:format(scratch));
			assert.equal(2, code);
			assert.truthy(output:find("debian/changelog is about version 9.8, and mod_client_proxy/version.lua says "..VERSION, 1, true), output);
		end);

		it("has all of the module, in Prosody's own folder, and nothing that can be run", function ()
			local unpacked = scratch.."/unpacked";
			run("dpkg-deb --extract %s %s", package, unpacked);
			assert.equal("", run("diff -r --exclude=core.so mod_client_proxy %s%s", unpacked, FOLDER));
			assert.equal("", run("find %s/usr/lib -type f -executable", unpacked));
			assert.equal("", run("find %s -type f -not -path '*%s/*' -not -path '*/usr/share/doc/%s/*'", unpacked, FOLDER, NAME));
		end);

		it("has a core.so that is hardened as that of make is", function ()
			run("dpkg-deb --extract %s %s/hardened", package, scratch);
			local output = run("CORE_DIR=%s/hardened%s/.. tools/spec spec/core/as_built/hardening_spec.lua", scratch, FOLDER);
			assert.truthy(output:find("\nok ", 1, true), output);
		end);

		it("is the same to the byte, built in another place by somebody else", function ()
			assert.equal("", run("cmp %s %s", package, build("again", VERSION)));
		end);
	end);

	describe("in a Debian of its own", function ()
		local debian;

		setup(function ()
			debian = new_debian();
		end);

		teardown(function ()
			if debian then
				debian:remove();
			end
		end);

		-- Whatever has become of the packages, they go, and so does what has been diverted. Their scripts may be such that fail.
		after_each(function ()
			debian:must_run(("rm -f /var/lib/dpkg/info/%s.p*; dpkg --purge --force-remove-reinstreq %s %s %s; dpkg-divert --rename --remove %s")
				:format(NAME, NAME, OTHER, JITSI, JITSIS));
		end);

		local function install(path, ...)
			local output, code = debian:install(path, ...);
			assert.equal(0, code, output);
			return output;
		end

		local function fails_to_install(path, ...)
			local output, code = debian:install(path, ...);
			assert.not_equal(0, code, output);
		end

		local function dpkg(...)
			return debian:must_run("dpkg "..table.concat({ ... }, " "));
		end

		-- Which version of Jitsi's file is in its place, and which is put aside, nil for none; and who has diverted it, "" for nobody
		local function assert_jitsis(in_place, aside, diverted_by)
			local function version_at(path)
				return (debian:content(path) or ""):match("Jitsi's module ([%d.]+)");
			end
			assert.same({ in_place = in_place, aside = aside, diverted_by = diverted_by or aside and NAME or "" }, {
				in_place = version_at(JITSIS), aside = version_at(ASIDE);
				diverted_by = debian:must_run("dpkg-divert --listpackage "..JITSIS):gsub("\n", "");
			});
		end

		it("puts Jitsi's module aside, and gives it back when it is removed", function ()
			install(jitsi);
			install(package);
			assert_jitsis(nil, "1.0");
			dpkg("--remove", NAME);
			assert_jitsis("1.0", nil);
		end);

		it("puts one aside that comes later, is upgraded, and goes", function ()
			install(package);
			assert_jitsis(nil, nil, NAME);
			install(jitsi);
			assert_jitsis(nil, "1.0");
			install(next_jitsi);
			assert_jitsis(nil, "2.0");
			dpkg("--purge", JITSI);
			assert_jitsis(nil, nil, NAME);
			dpkg("--remove", NAME);
			assert_jitsis(nil, nil);
		end);

		it("gives back the version that Jitsi's package has by then", function ()
			install(jitsi);
			install(package);
			install(next_jitsi);
			install(next_package);
			assert_jitsis(nil, "2.0");
			dpkg("--purge", NAME);
			assert_jitsis("2.0", nil);
		end);

		it("leaves nothing behind when it is purged", function ()
			local function files()
				return debian:must_run "find / -xdev -not -path '/var/lib/dpkg/*' -not -path '/var/log/*' -not -path '/tmp/*' | sort";
			end
			local before = files();
			install(package);
			assert.not_equal(before, files());
			dpkg("--purge", NAME);
			assert.equal(before, files());
			assert.equal("", debian:must_run("grep -l client.proxy /var/lib/dpkg/diversions /var/lib/dpkg/status || true"));
		end);

		it("leaves a diversion alone that somebody else has made", function ()
			install(jitsi);
			debian:must_run("dpkg-divert --local --rename --add "..JITSIS);
			install(package);
			assert_jitsis(nil, "1.0", "LOCAL");
			dpkg("--purge", NAME);
			assert_jitsis(nil, "1.0", "LOCAL");
		end);

		it("overwrites no file that somebody has put in the place of Jitsi's", function ()
			install(jitsi);
			install(package);
			write_file(debian.root..JITSIS, "-- nobody's, which is in the place of Jitsi's module 3.0");
			assert_jitsis("3.0", "1.0");
			local output, code = debian:run("dpkg --remove "..NAME);
			assert.not_equal(0, code);
			assert.truthy(output:find("rename involves overwriting '"..JITSIS.."'", 1, true), output);
			assert_jitsis("3.0", "1.0");
			debian:must_run("rm "..JITSIS);
			dpkg("--remove", NAME);
			assert_jitsis("1.0", nil);
		end);

		it("keeps Jitsi's module aside when an upgrade fails", function ()
			install(jitsi);
			install(package);
			fails_to_install(change_package("failing-preinst", failing "preinst"));
			assert_jitsis(nil, "1.0");
			fails_to_install(change_package("conflicting", "mkdir -p usr/bin && echo >usr/bin/prosody"));
			assert_jitsis(nil, "1.0");
			fails_to_install(change_package("failing-postinst", failing "postinst"));
			assert_jitsis(nil, "1.0");
		end);

		it("keeps it aside when the removal fails", function ()
			install(jitsi);
			install(change_package("failing-prerm", failing "prerm"));
			assert.not_equal(0, select(2, debian:run("dpkg --remove "..NAME)));
			assert_jitsis(nil, "1.0");
		end);

		it("leaves it in its place when the installation fails", function ()
			install(jitsi);
			fails_to_install(change_package("conflicting-at-first", "mkdir -p usr/bin && echo >usr/bin/prosody"));
			assert_jitsis("1.0", nil);
		end);

		it("gives it back when it is removed in the middle of an upgrade", function ()
			install(jitsi);
			install(package);
			install(next_package, "--unpack");
			assert_jitsis(nil, "1.0");
			dpkg("--remove", NAME);
			assert_jitsis("1.0", nil);
		end);

		it("gives it back when another package replaces all of it", function ()
			install(jitsi);
			install(package);
			install(change_package("replacing", ("rm DEBIAN/post* && sed -i 's/^Package: .*/Package: %s\\nReplaces: %s/' DEBIAN/control")
				:format(OTHER, NAME)));
			assert_jitsis("1.0", nil);
		end);

		it("has Jitsi's module either aside or in its place, whatever happens in which order", function ()
			local seed = tonumber(os.getenv("SPEC_SEED")) or os.time();
			print("debian_spec: SPEC_SEED="..seed);
			math.randomseed(seed);
			local broken = change_package("conflicting-by-chance", "mkdir -p usr/bin && echo >usr/bin/prosody");
			local is_unpacked, is_diverted, theirs = false, false, nil;
			local steps = {
				function () install(package, "--install --force-downgrade"); is_unpacked, is_diverted = true, true; end;
				function () install(next_package); is_unpacked, is_diverted = true, true; end;
				function () install(next_package, "--unpack"); is_unpacked = true; end;
				function () dpkg "--configure --pending"; is_diverted = is_unpacked; end;
				function () fails_to_install(broken); end;
				function () dpkg("--remove", NAME); is_unpacked, is_diverted = false, false; end;
				function () dpkg("--purge", NAME); is_unpacked, is_diverted = false, false; end;
				function () install(jitsi, "--install --force-downgrade"); theirs = "1.0"; end;
				function () install(next_jitsi); theirs = "2.0"; end;
				function () dpkg("--purge", JITSI); theirs = nil; end;
			};
			for _ = 1, STEPS do
				steps[math.random(#steps)]();
				if is_diverted then
					assert_jitsis(nil, theirs, NAME);
				else
					assert_jitsis(theirs, nil);
				end
			end
		end);

		local function serves()
			local backend = service.backend(debian, "a");
			local requester = service.requester(debian);
			requester:send(service.request("served"));
			requester:sync();
			assert.equal(1, service.answer_all(backend));
			assert.equal("result", requester:receive().attr.type);
			backend:close();
			requester:close();
		end

		-- Starts Prosody anew, and tells what the log has of who is loaded.
		local function restart()
			if debian.pid then
				debian:stop();
			end
			debian:must_run "rm -f /tmp/prosody.log";
			debian:start();
			return debian:content "/tmp/prosody.log":match("proxy%.domain%.example:client_proxy\tinfo\t([^\n]*)");
		end

		local function assert_tells_to_restart(output)
			assert.truthy(output:find("goes on with the mod_client_proxy that it has until it is restarted", 1, true), output);
		end

		it("serves in place of Jitsi's module, until it is removed, with Jitsi's configuration", function ()
			debian:configure();
			install(jitsi);
			assert.equal("Jitsi's module 1.0", restart());
			assert_tells_to_restart(install(package));
			assert.equal(("This is version %s, from %s"):format(VERSION, MODULE), restart());
			serves();
			assert_tells_to_restart(install(next_package));
			serves();
			assert.equal(("This is version %s, from %s"):format(NEXT_VERSION, MODULE), restart());
			serves();
			dpkg("--purge", NAME);
			assert.equal("Jitsi's module 1.0", restart());
		end);
	end);
end);
