rockspec_format = "3.0"
package = "mod_client_proxy"
version = "1.0-1"
source = {
	url = ".", -- the checkout: luarocks make rockspec/mod_client_proxy-1.0-1.rockspec
}
description = {
	summary = "Prosody component that puts all online resources of an account behind one address",
	license = "MIT",
	labels = { "prosody", "xmpp" },
}
supported_platforms = { "unix" }
dependencies = {
	"lua == 5.4",
}
external_dependencies = {
	SODIUM = {
		header = "sodium.h",
		library = "sodium",
	},
}
build = {
	type = "make",
	build_target = "all",
	build_variables = {
		CC = "$(CC)",
		LUA_CFLAGS = "-I$(LUA_INCDIR)",
		SODIUM_CFLAGS = "-I$(SODIUM_INCDIR)",
		SODIUM_LIBS = "-L$(SODIUM_LIBDIR) -lsodium",
	},
	install_target = "install-rock",
	install_variables = {
		LUADIR = "$(LUADIR)",
		LIBDIR = "$(LIBDIR)",
	},
}
