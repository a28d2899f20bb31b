std = "lua54"
max_line_length = 150
cache = false

files["mod_client_proxy"] = {
	read_globals = { "prosody" },
	globals = { "module" },
}
files["spec"] = {
	std = "+busted",
}
files["spec/support/modules"] = {
	read_globals = { "prosody" },
	globals = { "module" },
}
files["bench/modules"] = {
	globals = { "module" },
}
-- generated
exclude_files = { ".build", "spec/vectors" }
