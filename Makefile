# make           builds mod_client_proxy/core.so
# make demo      shows a request and its answer on a throwaway Prosody
# make test      runs all specs, on every Prosody to be had
# make lint      looks for faults without running anything
# make coverage  says which lines and branches of c_src no spec goes through
# make bench     measures, and draws what comes of it in bench/results; with PLUGIN_PATH= also
#                the module of 2018, where it is
# make scale     measures what a request costs with several fronts, other servers as targets, and many backends; what
#                their limits do; and how very many would do, and writes that to bench/results
# make chaos     lets all parties misbehave for SECONDS=600, and counts what comes of it; with
#                PLUGIN_PATH= that of another mod_client_proxy, where it is
# make mutants   breaks the module in small ways, and says which of them no spec finds
# make fuzz      looks for inputs that break the C part, for SECONDS=600 each of its units
# make deb       builds the Debian package for the release that this runs on, below .build/deb
# make install   copies the module's folder to $(DESTDIR)$(MODULES)
# make clean     removes what was built; make distclean also what was downloaded
#
# demo, test, lint, coverage, bench, scale, chaos, mutants, fuzz and deb first get from Debian's packages what they need.

version := $(shell sed -n 's/^return "\(.*\)";$$/\1/p' mod_client_proxy/version.lua)

LUA_VERSION = 5.4
LUA_CFLAGS = -I/usr/include/lua$(LUA_VERSION)
SODIUM_CFLAGS =
SODIUM_LIBS = -lsodium
SECONDS = 600
SOAK_SECONDS = 900
PLUGIN_PATH =
MODULES = /usr/local/lib/prosody/modules

CC = gcc
CFLAGS = -O2 -g
HARDENING = -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-protector-strong -Wl,-z,relro,-z,now
WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes
COUNTERS = -O1 -g --coverage -fno-early-inlining
SANITIZERS = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
# cells.c knows by the macro, which is gcc's and not clang's, that AddressSanitizer is there. libFuzzer can trace
# what is compared, but that takes half of the time, and helps little where the input is a sequence of calls.
FUZZING = $(SANITIZERS) -fsanitize=fuzzer -fno-sanitize-coverage=trace-cmp -D__SANITIZE_ADDRESS__
C = -std=c11 $(WARNINGS) -DCLIENT_PROXY_VERSION=$(version) -iquote c_src $(LUA_CFLAGS) $(SODIUM_CFLAGS) -fPIC -fvisibility=hidden

core = mod_client_proxy/core.so
sanitized_core = .build/sanitized/$(core)
failing_core = .build/failing/$(core)
covered_core = .build/coverage/$(core)
colliding_core = .build/colliding/$(core)
fuzz_sources = $(wildcard c_src/fuzz/*.c)
fuzzers = $(patsubst c_src/%.c,.build/%,$(fuzz_sources))
sources = $(filter-out $(fuzz_sources),$(wildcard c_src/*.c c_src/*/*.c))
headers = $(wildcard c_src/*.h c_src/*/*.h)
# what knows nothing of Lua
units = $(filter-out c_src/lua/%,$(sources))
bench_programs = $(patsubst bench/%.c,.build/%,$(wildcard bench/*.c))
simulations = $(filter .build/simulate_%,$(bench_programs))
main = mod_client_proxy/mod_client_proxy.lua
libraries = $(filter-out $(main),$(wildcard mod_client_proxy/*.lua))

ifeq ($(version),)
$(error mod_client_proxy/version.lua does not say a version)
endif
ifneq ($(words $(sources)),$(words $(sort $(notdir $(sources)))))
$(error Two files below c_src have the same name, by which gcc keeps what make coverage counts)
endif

# Whatever core.so is built with is written to a file, whether it stands here or on the command line. The file
# changes when that does, and then core.so is built anew.
built_with = $(CC) $(C) $(CFLAGS) $(HARDENING) $(LDFLAGS) $(SODIUM_LIBS)
ifneq ($(strip $(built_with)),$(strip $(file <.build/built_with)))
$(shell mkdir -p .build)
$(file >.build/built_with,$(built_with))
endif
build = Makefile .build/built_with

.PHONY: all demo test lint coverage bench scale chaos mutants fuzz deb install install-rock clean distclean
all: $(core)

$(core): $(sources) $(headers) $(build)
	@$(CC) $(C) -E c_src/requirements.h >/dev/null
	$(CC) -shared $(C) $(CFLAGS) $(HARDENING) $(LDFLAGS) $(sources) $(SODIUM_LIBS) -o $@

$(sanitized_core): $(sources) $(headers) $(build)
	mkdir -p $(@D)
	$(CC) -shared $(C) -Werror $(SANITIZERS) $(sources) $(SODIUM_LIBS) -o $@

# Of the hash that a short token is made of, one byte is left, so that many requesters have the same one.
$(colliding_core): $(sources) $(headers) $(build)
	mkdir -p $(@D)
	$(CC) -shared $(C) -Werror $(SANITIZERS) -DJAT_HASHBYTES=1 $(sources) $(SODIUM_LIBS) -o $@

# spec/support/failing_allocations.c gets each call of the sources that allocates memory, left_behind.c each that frees it.
WRAPPERS = spec/support/failing_allocations.c spec/support/left_behind.c
WRAPPED = $(WRAPPERS) $(foreach function,malloc calloc realloc sodium_allocarray mmap sodium_init free munmap, \
	-Wl,--wrap=$(function))

$(failing_core): $(sources) $(headers) $(WRAPPERS) $(build)
	mkdir -p $(@D)
	$(CC) -shared $(C) $(SANITIZERS) $(sources) $(WRAPPED) $(SODIUM_LIBS) -o $@

$(covered_core): $(sources) $(headers) $(WRAPPERS) $(build)
	rm -rf $(@D)
	mkdir -p $(@D)
	gcc -shared $(C) $(COUNTERS) $(sources) $(WRAPPED) $(SODIUM_LIBS) -o $@

demo:
	@tools/setup build prosody
	@$(MAKE) --silent all
	@tools/with_scratch tools/on_prosody "$$(head -n 1 .build/prosody/list)" lua5.4 tools/demo.lua

test:
	@tools/setup build prosody prometheus ejabberd node test fuzz deb root
	@$(MAKE) --silent all $(sanitized_core) $(failing_core) $(covered_core) $(colliding_core) $(fuzzers)
	@tools/with_scratch tools/run_specs

lint:
	@tools/setup build lint
	@tools/lint "$(C)" "$(sources)" "$(fuzz_sources)"

coverage:
	@tools/setup build test
	@$(MAKE) --silent $(covered_core)
	@tools/coverage

chaos:
	@tools/setup build prosody
	@$(MAKE) --silent all
	@tools/with_scratch tools/chaos $(SECONDS) $(PLUGIN_PATH)

mutants:
	@tools/setup build prosody test
	@$(MAKE) --silent all
	@tools/mutants

fuzz:
	@tools/setup build fuzz
	@$(MAKE) --silent $(fuzzers)
	@tools/fuzz $(SECONDS)

$(fuzzers): .build/%: c_src/%.c $(units) $(headers) $(build)
	mkdir -p $(@D)
	clang $(C) -Werror $(FUZZING) $< $(units) $(SODIUM_LIBS) -o $@

bench:
	@tools/setup build prosody bench
	@$(MAKE) --silent all $(filter-out $(simulations),$(bench_programs))
	@tools/with_scratch bench/run $(SOAK_SECONDS) $(PLUGIN_PATH)

$(bench_programs): .build/%: bench/%.c $(wildcard bench/*.h) $(units) $(headers) $(build)
	mkdir -p $(@D)
	$(CC) $(C) -Werror -D_POSIX_C_SOURCE=200809L $(CFLAGS) $< $(units) $(SODIUM_LIBS) -lm -o $@

scale:
	@tools/setup build prosody ejabberd scale
	@$(MAKE) --silent all .build/sampler.so $(simulations)
	@tools/with_scratch bench/run_scale

.build/sampler.so: bench/lua/sampler.c $(build)
	$(CC) -shared $(C) -Werror -D_XOPEN_SOURCE=700 $(CFLAGS) $< -o $@

deb:
	@tools/setup build deb
	@tools/deb

install: all
	install -d $(DESTDIR)$(MODULES)/mod_client_proxy
	install -m 644 $(main) $(libraries) $(core) $(DESTDIR)$(MODULES)/mod_client_proxy

# For the rockspec: LUADIR and LIBDIR are the rock's. This must not depend on core.so: luarocks has built that before,
# with variables that it does not give again here.
install-rock:
	install -d $(LUADIR)/mod_client_proxy $(LIBDIR)/mod_client_proxy
	install -m 644 $(main) $(LUADIR)
	install -m 644 $(libraries) $(LUADIR)/mod_client_proxy
	install -m 644 $(core) $(LIBDIR)/mod_client_proxy

clean:
	rm -rf $(core) .build/sanitized .build/failing .build/coverage .build/colliding $(fuzzers)

distclean: clean
	rm -rf .build
