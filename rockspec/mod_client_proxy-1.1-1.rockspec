rockspec_format = "3.0"
package = "mod_client_proxy"
version = "1.1-1" -- of mod_client_proxy/version.lua, and of this file's name
source = {
	url = ".", -- the checkout: luarocks make rockspec/*.rockspec
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
-- so that SODIUM_DIR, SODIUM_INCDIR and SODIUM_LIBDIR can be given; whether it is there, make says
external_dependencies = {
	SODIUM = {},
}
build = {
	type = "make",
	build_target = "all",
	build_variables = {
		CC = "$(CC)",
		CFLAGS = "$(CFLAGS)",
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
