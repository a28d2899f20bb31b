# make           builds mod_client_proxy/core.so
# make demo      shows a request and its answer on a throwaway Prosody
# make test      runs all specs, on every Prosody to be had
# make lint      looks for faults without running anything
# make install   copies the module's folder to $(DESTDIR)$(MODULES)
# make clean     removes what was built; downloads too with "make distclean"
#
# demo, test and lint first get from Debian's packages what they need.

LUA_VERSION = 5.4
LUA_CFLAGS = -I/usr/include/lua$(LUA_VERSION)
MODULES = /usr/local/lib/prosody/modules

CC = gcc
CFLAGS = -O2 -g
HARDENING = -D_FORTIFY_SOURCE=2 -fstack-protector-strong -Wl,-z,relro,-z,now
WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Werror
SANITIZERS = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
COMPILE = -std=c11 $(WARNINGS) $(LUA_CFLAGS) -fPIC -fvisibility=hidden

core = mod_client_proxy/core.so
sources = $(wildcard c_src/*.c)
headers = $(wildcard c_src/*.h)

.PHONY: all demo test lint install clean distclean
all: $(core)

$(core): $(sources) $(headers) Makefile
	$(CC) -shared $(COMPILE) $(CFLAGS) $(HARDENING) $(LDFLAGS) $(sources) -lsodium -o $@

.build/sanitized/$(core): $(sources) $(headers) Makefile
	mkdir -p $(@D)
	$(CC) -shared $(COMPILE) $(SANITIZERS) $(sources) -lsodium -o $@

demo:
	tools/setup build prosody
	$(MAKE) --silent all
	tools/demo

test:
	tools/setup build prosody test
	$(MAKE) --silent all .build/sanitized/$(core)
	tools/run_specs

lint:
	tools/setup build lint
	tools/lint "$(COMPILE)" "$(sources)"

install: all
	install -d $(DESTDIR)$(MODULES)/mod_client_proxy
	install -m 644 mod_client_proxy/*.lua $(core) $(DESTDIR)$(MODULES)/mod_client_proxy

clean:
	rm -rf $(core) .build/sanitized

distclean: clean
	rm -rf .build
