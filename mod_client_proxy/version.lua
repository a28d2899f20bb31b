-- The version, which stands here and nowhere else but in the rock's name. The Makefile builds it into core.so, so that
-- load_core.lua sees whether the C part and the Lua files belong together.
return "1.1";
