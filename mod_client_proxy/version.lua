-- The version, which stands here and nowhere else but in the rock's name and in the Debian package's changelog, neither of
-- which can say another one. The Makefile builds it into core.so, so that load_core.lua sees whether the C part and the
-- Lua files belong together.
return "1.1";
