-- The version, which stands here and nowhere else: the Makefile builds it into core.so, by which
-- load_core.lua sees that both halves belong together, and the rock has to be named by it.
return "1.1";
